package aio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func ringSetup(entries uint32, p *ringParams) (fd int, errno unix.Errno) {
	r, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	return int(r), errno
}

// setMaxWorkers bounds the kernel threads that carry out what would block: [0] requests
// on files and block devices, [1] everything else; 0 leaves a bound as it is.
func setMaxWorkers(fd int, workers *[2]uint32) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), registerIOWQMaxWorkers,
		uintptr(unsafe.Pointer(workers)), 2, 0, 0)
	return errno
}

// resizeRings has the kernel make the rings anew, and fills p in as ringSetup does.
func resizeRings(fd int, p *ringParams) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), registerResizeRings, uintptr(unsafe.Pointer(p)), 1, 0, 0)
	return errno
}

// mapRings maps the memory the kernel made for the ring and fills in r's views of it.
//
// Preconditions: p came back from ringSetup with featSingleMmap.
func (r *ring) mapRings(p *ringParams) error {
	size := uintptr(p.cqOff.cqes) + uintptr(p.cqEntries)*unsafe.Sizeof(cqe{})
	if p.flags&setupNoSQArray == 0 {
		size = max(size, uintptr(p.sqOff.array)+uintptr(p.sqEntries)*4)
	}
	rings, err := unix.Mmap(r.fd, offSQRing, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	entries, err := unix.Mmap(r.fd, offSQEs, int(uintptr(p.sqEntries)*unsafe.Sizeof(sqe{})),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		_ = unix.Munmap(rings)
		return err
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&rings[off])) }
	r.rings, r.entries = rings, entries

	r.sqHead, r.sqTail, r.sqFlags = word(p.sqOff.head), word(p.sqOff.tail), word(p.sqOff.flags)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&entries[0])), p.sqEntries)
	r.cqHead, r.cqTail = word(p.cqOff.head), word(p.cqOff.tail)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&rings[p.cqOff.cqes])), p.cqEntries)

	if p.flags&setupNoSQArray != 0 {
		return nil
	}
	// The kernel reads entries through an index array; ours are always in order.
	array := unsafe.Slice(word(p.sqOff.array), p.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	return nil
}

// setBuffers points an entry at the memory of a transfer: at the one buffer itself, or at
// the vector, which the kernel reads while the entry is submitted (featSubmitStable) and
// which its slot keeps reachable until the transfer has ended.
func (s *sqe) setBuffers(iov []unix.Iovec) {
	if len(iov) == 1 {
		s.addr = uint64(uintptr(unsafe.Pointer(iov[0].Base)))
		s.length = uint32(min(iov[0].Len, maxTransfer))
		return
	}
	s.addr = uint64(uintptr(unsafe.Pointer(&iov[0])))
	s.length = uint32(len(iov))
}
