package aio

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bell wakes one thread that waits for it: futex(2). A channel would wake a goroutine, which
// Go's scheduler gives to a thread that it wakes, if it finds it: two steps more than a
// request for a fast disk has time for. The zero value has not been rung.
type bell struct{ rung atomic.Uint32 }

const (
	futexWait = 0 | futexPrivate
	futexWake = 1 | futexPrivate

	futexPrivate = 128
)

// ring lets one wait return, the present one or the next.
func (b *bell) ring() {
	b.rung.Store(1)
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&b.rung)), futexWake, 1, 0, 0, 0)
}

// wait returns when the bell has been rung.
func (b *bell) wait() {
	for b.rung.Swap(0) == 0 {
		// EAGAIN and EINTR: it was rung, or not; the word tells.
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&b.rung)), futexWait, 0, 0, 0, 0)
	}
}
