package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// leaveFirstCPU keeps the calling thread, and what it starts, off the lab's first processor, so that no guest ever runs
// there.
//
// In QEMU 7.2 (10.0 crashes in the same way) every FXRSTOR, on whichever processor, clears a flag in a word of the
// *first* one without a lock (cpu_clear_ignne in target/i386/tcg). The same word, hflags2, says whether that processor
// translates addresses through nested page tables, takes interrupts and hides its interrupt flag, which entering and leaving
// a guest change. Now and then one of the two changes is lost: a guest goes on in the host's memory, the host in a guest's,
// or the processor never takes an interrupt again. Where no guest is entered there is nothing to lose.
func leaveFirstCPU() error {
	var others unix.CPUSet
	for cpu := 1; cpu < runtime.NumCPU(); cpu++ {
		others.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &others); err != nil {
		return fmt.Errorf("leave the first processor: %w", err)
	}
	return nil
}
