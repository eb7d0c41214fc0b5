package main

import "fmt"

// The guests.
const (
	ring3 = "ring3" // guest/diskbench: polls its disk, and needs no more of a KVM than ring 3
	linux = "linux" // Debian's kernel, with the workload load of guest/init
)

// boot is what a VMM starts.
type boot struct {
	kernel, initrd, cmdline string
	memoryMiB               int
}

// boot is that of the cell's guest.
func (b *bench) boot() boot {
	if b.cell.Guest == ring3 {
		return boot{kernel: b.diskbench, memoryMiB: 64,
			cmdline: fmt.Sprintf("depth=%d size=4096 mode=write forever period=%d", b.cell.Depth, period.Milliseconds())}
	}
	l := boot{kernel: b.linux.Kernel.Vmlinux, initrd: b.linux.Initrd, memoryMiB: 128,
		cmdline: fmt.Sprintf("console=ttyS0 quiet panic=-1 ebb.run=load:period=%v:depth=%d", period, b.cell.Depth)}
	if b.cell.ofMemory() {
		l.memoryMiB = b.memoryMiB
		l.cmdline += fmt.Sprintf(":fill=%dm:dirty=%d", filled(b.memoryMiB), b.cell.Dirty*1e6)
	}
	return l
}

// filled is how many MiB of a guest's memory are filled with random bytes. The rest is the kernel's, of which it keeps some free.
func filled(memoryMiB int) int { return memoryMiB - max(192, memoryMiB/10) }
