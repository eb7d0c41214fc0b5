package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of <linux/fs.h> that x/sys has no function for.
const (
	blkDiscard = 0x1277     // uint64[2]: offset, length in bytes
	blkZeroOut = 0x127f     // the same
	fiTrim     = 0xc0185879 // struct fstrim_range
)

// trimRange is struct fstrim_range, all in bytes. The kernel sets length to what it trimmed.
type trimRange struct{ start, length, minimum uint64 }

// blkRange discards or zeroes a range of a block device.
func blkRange(fd int, request uint, offset, length int64) error {
	r := [2]uint64{uint64(offset), uint64(length)}
	return ioctl(fd, request, unsafe.Pointer(&r))
}

// trim discards all free space of a mounted file system and returns how many bytes that was.
func trim(fd int) (uint64, error) {
	r := trimRange{length: ^uint64(0)}
	err := ioctl(fd, fiTrim, unsafe.Pointer(&r))
	return r.length, err
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
