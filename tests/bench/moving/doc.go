// Package moving is what benchmarks of migrations share: processes with a guest that migrates from one to the
// next, what the guest says at both sides, and throttled disks. The guest is guest/diskbench, forever.
//
//	vm.go        processes
//	ebb.go       those of ebb
//	qmp.go       QEMU's monitor
//	console.go   what the guest says, here and there
//	throttle.go  a cgroup with few requests a second
//	copy.go      a plain copy, which a migration is compared with
//	touch.go     memory that was used before
package moving
