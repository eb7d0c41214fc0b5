package aio

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aioContext is one of the kernel's queues for Linux AIO: io_setup(2).
type aioContext struct {
	id       uintptr
	events   int // operations it takes
	inFlight int // operations it has

	ring *aioRing
	done []ioEvent // the ring's
}

func newContext(events int) (*aioContext, unix.Errno) {
	var ring *aioRing // the kernel stores the context's id, which is the address of its ring
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(events), uintptr(unsafe.Pointer(&ring)), 0); errno != 0 {
		return nil, errno
	}
	c := &aioContext{id: uintptr(unsafe.Pointer(ring)), events: events}
	if ring.magic != aioRingMagic || ring.incompatFeatures != 0 || ring.headerLength != uint32(unsafe.Sizeof(aioRing{})) {
		c.destroy() // a layout that no kernel has had in twenty years
		return nil, unix.ENOSYS
	}
	c.ring = ring
	c.done = unsafe.Slice((*ioEvent)(unsafe.Add(unsafe.Pointer(ring), ring.headerLength)), ring.nr)
	return c, 0
}

// destroy gives the context back. It waits for operations that are still in it, and for a
// grace period of the kernel's: about 30 ms.
func (c *aioContext) destroy() unix.Errno {
	c.ring, c.done = nil, nil // their memory goes
	_, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, c.id, 0, 0)
	return errno
}

// submit is io_submit(2): how many the kernel took, or why it didn't take the first.
func (c *aioContext) submit(iocbs []*iocb) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, c.id, uintptr(len(iocbs)), uintptr(unsafe.Pointer(&iocbs[0])))
	if errno != 0 {
		return 0, errno
	}
	c.inFlight += int(n)
	return int(n), 0
}

// pending reports whether reap would find something, as far as that can be told without a
// system call. If not, the eventfd will be signalled.
func (c *aioContext) pending() bool {
	return c.ring.head != atomic.LoadUint32(&c.ring.tail)
}

// reap takes the results of operations, at most as many as fit, without waiting.
func (c *aioContext) reap(events []event) int {
	n := 0
	// The kernel fills in events before it moves tail, and reuses them after head has moved.
	head, tail := c.ring.head, atomic.LoadUint32(&c.ring.tail)
	for ; head != tail && n < len(events); n++ {
		events[n] = c.done[head].event()
		if head++; head == uint32(len(c.done)) {
			head = 0
		}
	}
	atomic.StoreUint32(&c.ring.head, head)
	c.inFlight -= n
	return n
}

// setBuffers points the control block at the memory of a transfer, as an sqe's.
func (b *iocb) setBuffers(iov []unix.Iovec) {
	if len(iov) == 1 {
		b.buf, b.nbytes = uint64(uintptr(unsafe.Pointer(iov[0].Base))), min(iov[0].Len, maxTransfer)
		return
	}
	b.buf, b.nbytes = uint64(uintptr(unsafe.Pointer(&iov[0]))), uint64(len(iov))
}
