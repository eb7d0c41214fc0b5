package aio

import (
	"fmt"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"
)

// native is the Linux AIO backend. io_submit(2) has a bad name for blocking although it is
// asked not to; here it gets only what it can do at once:
//
//	                            O_DIRECT                     buffered
//	read                        with RWF_NOWAIT              with RWF_NOWAIT, up to 64 KiB
//	write                       with RWF_NOWAIT              worker
//	fdatasync, fallocate        worker                       worker
//	would block (EAGAIN)        worker                       worker
//	refused at completion       worker                       worker
//	no RWF_NOWAIT, on tmpfs     up to 64 KiB                 worker
//	no RWF_NOWAIT, on NFS       up to 64 KiB                 worker
//	no RWF_NOWAIT, elsewhere    worker                       worker
//
// One thing blocks it nevertheless: a write to a regular file whose file system is frozen, whatever is asked.
//
// Completions come through memory shared with the kernel, without a system call; an eventfd,
// watched by epoll beside the guests' kicks, ends the sleep. Those of files on tmpfs, which are
// there before there could be a sleep, don't signal it.
type native struct {
	*poller
	workers *workers

	capacity int
	context  *aioContext
	coming   chan newcomer  // a context being made; nil: none
	old      []*aioContext  // replaced, until they are empty
	aside    sync.WaitGroup // making and destroying contexts

	files map[int]nativeFile // by descriptor: those used, until they are forgotten
	last  int                // the descriptor used last
	file  nativeFile         // and its record

	iocbs    [batch]iocb // [:queued] in the order of submission
	pointers [batch]*iocb
	ops      [batch]operation // what the iocbs are made of
	queued   int

	unasked int // operations handed over since epoll was last asked
}

// askEvery is the most operations handed over while epoll is not asked for kicks, because there
// are completions to see to: asking takes half as long as reading 4 KiB of a file in memory.
const askEvery = 8

// nativeFile is what io_submit can do for a file.
type nativeFile uint8

const (
	fileUnknown  nativeFile = iota
	fileDirect              // O_DIRECT: everything
	fileBuffered            // reads with RWF_NOWAIT
	fileBlocking            // nothing
)

// newNative makes a backend, with a first context of the least capacity, or of the limit if
// that is lower.
func newNative(limit int) (*native, int, error) {
	p, err := newPoller()
	if err != nil {
		return nil, 0, err
	}
	n := &native{poller: p, workers: newWorkers(p.wake), files: make(map[int]nativeFile), last: -1}
	for i := range n.iocbs {
		n.pointers[i] = &n.iocbs[i]
	}
	events := min(limit, minCapacity)
	c, errno := newContext(events)
	if errno != 0 {
		n.workers.close()
		_ = p.close()
		return nil, 0, setupError(events, errno)
	}
	n.context = c
	return n, limit, nil
}

func setupError(events int, errno unix.Errno) error {
	switch errno {
	case unix.EAGAIN:
		return fmt.Errorf("no Linux AIO context for %d requests: all programs of this host together may have no more than "+
			"the sysctl fs.aio-max-nr; raise it (sysctl fs.aio-nr tells what is used)", events)
	case unix.ENOSYS, unix.EPERM, unix.EACCES:
		return fmt.Errorf("io_setup is refused (%w): give another engine, use a kernel with CONFIG_AIO, "+
			"or in a container let its seccomp profile allow io_setup", errno)
	}
	return fmt.Errorf("aio: io_setup for %d requests: %w", events, errno)
}

// newcomer is a new context, or why there is none.
type newcomer struct {
	context *aioContext
	errno   unix.Errno
}

// resize has a context made for the capacity, if the present one doesn't fit: for contexts
// can't be resized, it is a new one beside the old, which goes once it is empty. io_setup(2)
// takes longer than requests in flight should wait, so another thread does it, and contexts grow in
// powers of two. Without a context that is large enough, what doesn't fit goes to the workers.
//
//	events  = 2^⌈log2 capacity⌉, or capacity where fs.aio-max-nr leaves no more;
//	          a context is kept while capacity ≤ events ≤ 4 · capacity
func (n *native) resize(capacity, workers int) error {
	n.workers.resize(workers)
	n.capacity = capacity
	n.fit()
	return nil
}

func (n *native) forget(fd int) {
	n.workers.forget(fd)
	delete(n.files, fd)
	if n.last == fd {
		n.last = -1
	}
}

// fit has a context made if the present one doesn't fit and none is being made.
func (n *native) fit() {
	capacity, have := n.capacity, n.context.events
	if n.coming != nil || capacity <= have && have <= 4*capacity {
		return
	}
	coming := make(chan newcomer, 1)
	n.coming = coming
	n.aside.Go(func() {
		c, errno := newContext(1 << bits.Len(uint(capacity-1)))
		if errno == unix.EAGAIN {
			c, errno = newContext(capacity)
		}
		coming <- newcomer{c, errno}
		_, _ = unix.Write(n.wake, one)
	})
}

// replace takes over a context that has been made.
func (n *native) replace() {
	select {
	case made := <-n.coming:
		n.coming = nil
		switch {
		case made.errno == 0:
			n.old = append(n.old, n.context)
			n.context = made.context
			n.retire()
			n.fit() // the capacity may be another by now
		case n.capacity > n.context.events: // else the old one only takes more of fs.aio-max-nr than it need
			n.ended.push(event{kind: eventNoRoom, result: -int32(made.errno)})
		}
	default:
	}
}

// retire destroys the old contexts that are empty, and doesn't wait for that.
func (n *native) retire() {
	kept := n.old[:0]
	for _, c := range n.old {
		if c.inFlight > 0 {
			kept = append(kept, c)
			continue
		}
		n.aside.Go(func() { c.destroy() })
	}
	clear(n.old[len(kept):])
	n.old = kept
}

func (n *native) room() int { return batch - n.queued - len(n.workers.batch) }

func (n *native) submit(op *operation) {
	if op.async || op.file == handAll || op.code != opRead && op.code != opWrite {
		n.workers.add(op)
		return
	}
	var inline bool
	switch n.fileOf(op.fd) {
	case fileDirect:
		inline = op.file <= handBuffered || fits(op.iov, maxInline)
	case fileBuffered:
		inline = op.code == opRead && fits(op.iov, maxInline)
	}
	if !inline {
		n.workers.add(op)
		return
	}
	b := &n.iocbs[n.queued]
	*b = iocb{data: op.id, opcode: aioOpcode(op), fd: uint32(op.fd), offset: op.offset}
	b.setBuffers(op.iov)
	if op.file <= handBuffered {
		b.rwFlags = unix.RWF_NOWAIT
	}
	if op.file != handLarge { // else it is complete when io_submit returns
		b.flags, b.resFD = iocbResFD, uint32(n.wake)
	}
	if op.dsync {
		b.rwFlags |= unix.RWF_DSYNC
	}
	n.ops[n.queued] = *op
	n.queued++
}

// fits reports whether all buffers together have at most as many bytes.
func fits(iov []unix.Iovec, most uint64) bool {
	var sum uint64
	for i := range iov {
		if sum += iov[i].Len; sum > most {
			return false
		}
	}
	return true
}

func aioOpcode(op *operation) uint16 {
	single := len(op.iov) == 1
	switch {
	case op.code == opRead && single:
		return iocbPread
	case op.code == opRead:
		return iocbPreadv
	case single:
		return iocbPwrite
	default:
		return iocbPwritev
	}
}

func (n *native) fileOf(fd int) nativeFile {
	if fd == n.last {
		return n.file
	}
	file := n.files[fd]
	if file == fileUnknown {
		file = fileBuffered
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_DIRECT != 0 {
			file = fileDirect
		}
		n.files[fd] = file
	}
	n.last, n.file = fd, file
	return file
}

// flush hands everything queued to the kernel and to the workers.
func (n *native) flush() {
	for i := 0; i < n.queued; {
		taken, errno := n.context.submit(n.pointers[i:n.queued])
		i += taken
		if errno != 0 {
			n.refused(&n.ops[i], errno)
			i++
		}
	}
	clear(n.ops[:n.queued])
	n.queued = 0
	n.workers.flush()
}

// refused has a worker carry out what io_submit didn't take, and whose system call has the last word. EAGAIN: the context is
// full. Else it is the file that can't do that.
func (n *native) refused(op *operation, errno unix.Errno) {
	if errno == unix.EOPNOTSUPP || errno == unix.EINVAL {
		n.learn(op.fd, fileBlocking)
	}
	n.workers.add(op)
}

func (n *native) learn(fd int, file nativeFile) {
	n.files[fd] = file
	n.last, n.file = fd, file
}

func (n *native) wait(block bool) error {
	n.unasked += n.queued
	n.flush()
	if n.unasked <= askEvery && n.context.pending() {
		return nil
	}
	n.unasked = 0
	if !block || n.pending() || !n.workers.sleep() {
		return n.poller.wait(false)
	}
	err := n.poller.wait(true)
	n.workers.awake()
	return err
}

func (n *native) pending() bool {
	if n.poller.pending() || n.workers.pending() || n.context.pending() {
		return true
	}
	for _, c := range n.old {
		if c.pending() {
			return true
		}
	}
	return false
}

func (n *native) unaided() bool { return n.workers.inFlight == 0 }

func (n *native) reap(events []event) int {
	n.replace()
	k := n.poller.reap(events)
	k += n.workers.reap(events[k:])
	k += n.context.reap(events[k:])
	if len(n.old) > 0 {
		for _, c := range n.old {
			k += c.reap(events[k:])
		}
		n.retire()
	}
	return k
}

func (n *native) close() error {
	n.workers.close()
	n.aside.Wait()
	if n.coming != nil {
		if made := <-n.coming; made.errno == 0 {
			n.old = append(n.old, made.context)
		}
	}
	n.old = append(n.old, n.context)
	n.retire()
	n.aside.Wait()
	return n.poller.close()
}
