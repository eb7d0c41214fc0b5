package memory

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Wrote says that n bytes at a host address, as Bytes returned it, have been written by
// somebody who isn't the guest. It comes after the bytes, and before the guest is told of
// them. What isn't RAM is ignored. Any goroutine; without StartTracking it is one load.
func (r *RAM) Wrote(p *byte, n uint64) {
	w := r.written.Load()
	if w == nil || n == 0 {
		return
	}
	at := uint64(uintptr(unsafe.Pointer(p)))
	for i, g := range r.regions {
		if off, size := at-hostAddress(g.Bytes), uint64(len(g.Bytes)); off < size {
			w.mark(i, off, min(n, size-off))
			return
		}
	}
}

// barrier has every running thread of this process pass a full memory barrier
// (membarrier(2)). A kernel without it leaves a window of nanoseconds.
func barrier() {
	const registerPrivateExpedited, privateExpedited = 1 << 4, 1 << 3
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, registerPrivateExpedited, 0, 0)
	if errno == 0 {
		_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, privateExpedited, 0, 0)
	}
}
