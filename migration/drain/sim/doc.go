// Package sim runs package drain against disks that exist only as arithmetic, with guests, on a clock of
// its own: a migration of eight seconds takes milliseconds, and always goes the same way for a seed.
//
//	device.go  how disks take their time
//	shape.go   the VMs: which disks, which guests
//	vm.go      events: requests, the engine's windows and grace periods
//	run.go     one migration, and what came of it
//	laws.go    laws that were tried beside the default
package sim
