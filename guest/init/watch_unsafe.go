package main

import (
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapInt64 is the beginning of a file of at least a page, shared by all that map it, and never unmapped.
func mapInt64(fd int) (*atomic.Int64, error) {
	m, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return (*atomic.Int64)(unsafe.Pointer(unsafe.SliceData(m))), nil
}

// sleep is a system call that Go's runtime doesn't know of. Its monitor would watch a thread that comes and goes
// so closely, and with the thread's policy, that an emulated processor does nothing else. A signal ends it early.
func sleep(d time.Duration) {
	wait := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&wait)), 0, 0)
}
