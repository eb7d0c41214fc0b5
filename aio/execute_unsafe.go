package aio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// execute carries an operation out, on the calling thread and for as long as that takes,
// and returns what the system call did, or -errno.
func execute(op *operation) int32 {
	var n uintptr
	var errno unix.Errno
	switch op.code {
	case opRead, opWrite:
		n, errno = transfer(op)
	case opSync:
		_, _, errno = unix.Syscall(unix.SYS_FDATASYNC, uintptr(op.fd), 0, 0)
	case opAllocate:
		_, _, errno = unix.Syscall6(unix.SYS_FALLOCATE, uintptr(op.fd), uintptr(op.mode),
			uintptr(op.offset), uintptr(op.length), 0, 0)
	}
	if errno != 0 {
		return -int32(errno)
	}
	return int32(n)
}

// transfer reads or writes.
func transfer(op *operation) (n uintptr, errno unix.Errno) {
	fd, offset := uintptr(op.fd), uintptr(op.offset)
	n, errno = transferAt(op, fd, offset)
	if errno == unix.ESPIPE { // a pipe, and the like: there are no offsets
		const none = ^uintptr(0)
		call := uintptr(unix.SYS_PREADV2)
		if op.code == opWrite {
			call = unix.SYS_PWRITEV2
		}
		n, _, errno = unix.Syscall6(call, fd, uintptr(unsafe.Pointer(&op.iov[0])), uintptr(len(op.iov)), none, none, 0)
	}
	return n, errno
}

func transferAt(op *operation, fd, offset uintptr) (n uintptr, errno unix.Errno) {
	switch {
	case op.dsync:
		n, _, errno = unix.Syscall6(unix.SYS_PWRITEV2, fd, uintptr(unsafe.Pointer(&op.iov[0])),
			uintptr(len(op.iov)), offset, 0, unix.RWF_DSYNC)
	case len(op.iov) == 1 && op.code == opRead:
		n, _, errno = unix.Syscall6(unix.SYS_PREAD64, fd, uintptr(unsafe.Pointer(op.iov[0].Base)),
			uintptr(min(op.iov[0].Len, maxTransfer)), offset, 0, 0)
	case op.code == opRead:
		n, _, errno = unix.Syscall6(unix.SYS_PREADV, fd, uintptr(unsafe.Pointer(&op.iov[0])),
			uintptr(len(op.iov)), offset, 0, 0)
	case len(op.iov) == 1:
		n, _, errno = unix.Syscall6(unix.SYS_PWRITE64, fd, uintptr(unsafe.Pointer(op.iov[0].Base)),
			uintptr(min(op.iov[0].Len, maxTransfer)), offset, 0, 0)
	default:
		n, _, errno = unix.Syscall6(unix.SYS_PWRITEV, fd, uintptr(unsafe.Pointer(&op.iov[0])),
			uintptr(len(op.iov)), offset, 0, 0)
	}
	return n, errno
}
