package main

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is the least of an io_uring that a loop of reads needs
// (include/uapi/linux/io_uring.h). One thread uses it.
type ring struct {
	fd             int
	rings, sqeMem  []byte
	sqTail, cqHead *uint32
	cqTail         *uint32
	sqMask, cqMask uint32
	sqes           []sqe
	cqes           []cqe
	toSubmit       uint32
	tail, head     uint32
}

type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	length, rw    uint32
	userData      uint64
	_             [3]uint64
}

type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

type ringParams struct {
	sqEntries, cqEntries, flags, sqCPU, sqIdle, features, wqFD uint32
	_                                                          [3]uint32
	sqHead, sqTail, sqMask, sqCount, sqFlags, sqDropped, array uint32
	_                                                          [3]uint32
	cqHead, cqTail, cqMask, cqCount, cqOverflow, cqes, cqFlags uint32
	_                                                          [3]uint32
}

const (
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	opcodeRead        = 22
	enterGetEvents    = 1
	offSQEs           = 0x10000000
)

// newRing makes a ring for n requests, all submitted at once.
func newRing(n int) (*ring, error) {
	p := ringParams{flags: setupSingleIssuer | setupDeferTaskrun}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(n), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, errno
	}
	r := &ring{fd: int(fd)}
	size := max(int(p.array)+4*int(p.sqEntries), int(p.cqes)+16*int(p.cqEntries))
	var err error
	if r.rings, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		r.close()
		return nil, err
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, 64*int(p.sqEntries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		r.close()
		return nil, err
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqTail, r.sqMask = at(p.sqTail), *at(p.sqMask)
	r.cqHead, r.cqTail, r.cqMask = at(p.cqHead), at(p.cqTail), *at(p.cqMask)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.rings[p.cqes])), p.cqEntries)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	array := unsafe.Slice(at(p.array), p.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	return r, nil
}

func (r *ring) close() {
	unix.Close(r.fd)
	for _, m := range [][]byte{r.rings, r.sqeMem} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
}

// read queues a read. buf is not Go's memory, and stays until it is done.
func (r *ring) read(fd int32, buf []byte, off, userData uint64) {
	r.sqes[r.tail&r.sqMask] = sqe{opcode: opcodeRead, fd: fd, off: off,
		addr: uint64(uintptr(unsafe.Pointer(&buf[0]))), length: uint32(len(buf)), userData: userData}
	r.tail++
	r.toSubmit++
}

// enter submits what was queued and waits for one completion.
func (r *ring) enter() error {
	atomic.StoreUint32(r.sqTail, r.tail)
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.toSubmit), 1, enterGetEvents, 0, 0)
	if errno == unix.EINTR {
		return nil
	}
	if errno != 0 {
		return errno
	}
	r.toSubmit -= uint32(n)
	return nil
}

// next returns a completion, if there is one.
func (r *ring) next() (userData uint64, res int32, ok bool) {
	if r.head == atomic.LoadUint32(r.cqTail) {
		return 0, 0, false
	}
	c := r.cqes[r.head&r.cqMask]
	r.head++
	atomic.StoreUint32(r.cqHead, r.head)
	return c.userData, c.res, true
}
