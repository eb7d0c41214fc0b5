// Package guest builds the tiny Linux guests that ebb is tried and tested with: a stock Debian cloud kernel,
// fetched and cached below build/, and an initramfs written by Go code. Nothing here needs root.
//
//	kernel.go    FetchKernel: which package, download, unpack, cache
//	bzimage.go   ExtractVmlinux: the ELF file inside a bzImage
//	depmod.go    modules.dep: who needs whom, and in which order to load
//	cpio.go      the archive format of an initramfs
//	initrd.go    WriteInitrd: init, busybox, modules, programs
//	program.go   host programs with their shared libraries; static Go programs
//	image.go     Build: all of it, into build/
//	diskbench.go BuildDiskBench: the bare-metal disk benchmark
//	pattern/     disk contents that guest and host can both compute
//	report/      the lines the guest prints, and their parser
//	early/       what a PID 1 does first
//	init/        the guest's PID 1: report, shell, workloads
//	diskbench/   the bare-metal disk benchmark, in C; guest.h tells its files and options
//	build/       the command that the Makefile calls
//
// # Kernel command line
//
// Without ebb.run= the guest gives a shell on its console and powers off when that ends. With it, init runs the named
// workloads one after the other, prints "ebb: NAME ok" or "ebb: NAME FAILED: reason" for each, stops at the first
// failure, ends with "ebb: done ok" or "ebb: done FAILED: NAME", and powers off:
//
//	ebb.run=NAME[:KEY=VALUE]...[,NAME[:KEY=VALUE]...]...
//
// Sizes and offsets are bytes, with an optional suffix k, m or g (powers of 1024). `disks=vda+vdc` limits a workload
// to some disks. The workloads, and their keys with the defaults, are in init/workload.go.
//
// # The disk benchmark
//
// guest/diskbench is no Linux but a program of its own, without an operating system. It drives all virtio disks of PCI
// bus 0 from one vCPU, by polling and without an interrupt, in ring 3: so it runs at full speed also where KVM
// interprets ring 0. Its command line is made of
//
//	depth=64       requests in flight per disk; each takes 3 descriptors
//	size=4096      bytes a request, a multiple of 512
//	mode=read      or write, or mix: 7 reads of 10
//	seconds=2      of measuring, after 250 ms of warm-up
//	flush=N        a flush after every N writes of a disk
//	disks=N        use only the first N
//	verify         sectors say which disk, sector, write and run they are from; reads check it, at the end all of them
//	seed=N         of the random numbers, and the run that verify means
//	forever        no end, and a line every period (report.DiskBenchSecond)
//	period=1000    of those lines, in ms
//	late=0         ms, from the start on, in which the first disk has nothing to do
//
// In the end it prints a line (report.DiskBench) and powers off. When something is wrong it says so in a line that
// begins with "diskbench: FAILED: " and reports a panic, so that ebb's exit code is 4.
package guest
