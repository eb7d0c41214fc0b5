package aio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// knowsNowait reports whether a file can be asked not to block (RWF_NOWAIT of preadv2(2)).
// The kernel looks at the flag before anything else; the read itself fails, for its buffer
// is nowhere.
func knowsNowait(fd int) bool {
	iov := unix.Iovec{Len: maxAlign} // at address 0
	_, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, 0, 0, unix.RWF_NOWAIT)
	return errno != unix.EOPNOTSUPP
}
