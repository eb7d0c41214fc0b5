package aio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollWait is epoll_wait(2), without a timeout if block is set, else without waiting.
func epollWait(fd int, events []unix.EpollEvent, block bool) (int, unix.Errno) {
	if !block {
		// It doesn't sleep, so Go's scheduler need not hear of it.
		r, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd),
			uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		return int(r), errno
	}
	r, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
	return int(r), errno
}
