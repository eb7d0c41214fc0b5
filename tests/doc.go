// Package tests runs ebb as its users do: real guests, real images, the real
// command. Where the machine's KVM can't boot Linux, the whole package runs
// inside the lab (tests/lab), and no test has to know.
//
//	main_test.go    images for all tests, and where they run
//	ebb_test.go     starting ebb and talking to its guests
//	boot_test.go    kernels, formats, CPUs, memory, disks; the ways a guest ends
//	verify_test.go  what guests write is what the host reads back
//	fault_test.go   images that fail under a running guest
//	hung_test.go    disks that answer nothing hold up nothing but themselves, and give nothing away
//	idle_test.go    an idle guest's engine is not woken
//	inprocess_test.go  a guest in the test's process, for what only package machine can do
//	load_test.go    the workload of the benchmarks
//	pause_test.go   pausing a guest in full I/O
//	errorstop_test.go  a full disk stops the guest until it is resumed
//	hotplug_test.go disks that come, go and grow while a guest runs
//	host_test.go    two hosts on one machine, between which guests move
//	migrate_test.go     a guest that is used moves, and its user sees nothing of it
//	migrateio_test.go   a guest in full I/O moves back and forth; -migrations N has it move more often
//	footprint_test.go   what an ebb's process has open, and its memory
//	migratefail_test.go migrations that fail, or are made to, leave the guest at the source
//	migratelink_test.go over a link that is cut, and certificates
//	twolabs/        the same between hosts that have a kernel each
//	bench/          ebb beside QEMU, and disks beside each other; the Makefile's bench targets
package tests
