package kvm

import (
	"sync/atomic"
	"unsafe"
)

// immediateExitBit is kvm_run.immediate_exit, the byte at offset 1, seen in the
// little-endian word at offset 0.
const immediateExitBit uint32 = 1 << 8

// SetImmediateExit makes the next Run, and every one after it, return EINTR
// without entering the guest, until it is turned off again (needs CapImmediateExit).
// Any goroutine may call it at any time before Close.
//
// To stop a vCPU without a race: turn it on, then send its thread a signal. If
// the thread is not in Run yet, the flag is seen on entry; if it is, the signal ends Run.
//
// Go has no 8-bit atomics, so the flag is changed within its aligned 32-bit word.
// That word is request_interrupt_window, immediate_exit and two bytes of padding,
// all of which the kernel only reads and nothing else here writes. The kernel
// reads the byte, and an aligned store of 4 bytes is seen whole or not at all.
// The locked instruction is also the barrier that puts the store before the signal.
func (c *VCPU) SetImmediateExit(on bool) {
	word := (*uint32)(unsafe.Pointer(unsafe.SliceData(c.run)))
	if on {
		atomic.OrUint32(word, immediateExitBit)
	} else {
		atomic.AndUint32(word, ^immediateExitBit)
	}
}
