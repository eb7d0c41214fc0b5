package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// nudgeTime is the time between two rounds of nudgeCPUs.
const nudgeTime = 500 * time.Millisecond

// nudgeCPUs sends every processor but the first an interrupt, twice a second for as long as the lab lives.
//
// When a guest is entered that waits for an interrupt window, QEMU (helper_vmrun in target/i386/tcg/sysemu/svm_helper.c)
// sets a bit in the processor's interrupt_request without the lock that everybody else who changes that word holds. What
// somebody sets at the same moment can be lost, and the processor does not see an interrupt that its local APIC has. Any
// later one makes it look again. But if it was the timer's, and the one thread that runs there is a busy guest's, none ever comes:
// without a tick nothing ends the guest's turn, and its own timers, which are that processor's, have stopped.
//
// A thread of the highest priority that moves from processor to processor interrupts each that it comes to. It sleeps on the
// first, where no guest runs and nothing is lost (leaveFirstCPU).
func nudgeCPUs() {
	go func() {
		runtime.LockOSThread()
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 99}
		if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
			fmt.Fprintln(os.Stderr, "lab agent: interrupts that get lost stay lost:", err)
			return
		}
		wait := unix.NsecToTimespec(nudgeTime.Nanoseconds())
		for {
			for cpu := runtime.NumCPU() - 1; cpu >= 0; cpu-- {
				var one unix.CPUSet
				one.Set(cpu)
				_ = unix.SchedSetaffinity(0, &one) // every processor is there
			}
			_ = unix.Nanosleep(&wait, nil) // not time.Sleep, whose timer may be any processor's
		}
	}()
}
