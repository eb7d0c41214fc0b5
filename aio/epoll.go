package aio

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// poller is the wait loop of the engines that have no ring: it watches the guests' kicks
// and sleeps until one comes, or until its wake eventfd is signalled by whoever carries out
// operations. It is the engine thread's, but for wake.
//
// Everything is watched edge-triggered (EPOLLET): each signal of an eventfd is reported,
// though nobody ever reads it.
type poller struct {
	fd   int
	wake int // eventfd: write one to end a sleep; any thread may

	watches []pollWatch // by id

	ready       [64]unix.EpollEvent // [next:count] is still to be reported
	next, count int
	ended       fifo[event] // eventBroken and eventGone
}

type pollWatch struct {
	fd    int // as epoll knows it; watchArmed only
	own   bool
	state watchState // watchFree, watchArmed or watchBroken
}

// pollWake marks the wake eventfd in an epoll_event's second half; the first is a watch's id.
const pollWake = 1

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("aio: epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("aio: eventfd: %w", err)
	}
	p := &poller{fd: fd, wake: wake}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: pollEvents, Pad: pollWake}); err != nil {
		_ = p.close()
		return nil, fmt.Errorf("aio: epoll_ctl: %w", err)
	}
	return p, nil
}

const pollEvents = unix.EPOLLIN | unix.EPOLLET

func (p *poller) watch(id uint32, fd int) {
	for int(id) >= len(p.watches) {
		p.watches = append(p.watches, pollWatch{})
	}
	w := &p.watches[id]
	*w = pollWatch{fd: fd, state: watchArmed}
	err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: pollEvents, Fd: int32(id)})
	if err == unix.EEXIST {
		// epoll takes a descriptor once only.
		if w.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			w.own = true
			err = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, w.fd, &unix.EpollEvent{Events: pollEvents, Fd: int32(id)})
		}
	}
	if err != nil {
		w.release()
		w.state = watchBroken
		errno, _ := err.(unix.Errno)
		p.ended.push(event{kind: eventBroken, id: uint64(id), result: -int32(errno)})
	}
}

func (p *poller) unwatch(id uint32) {
	w := &p.watches[id]
	switch w.state {
	case watchArmed:
		// It can fail only for a descriptor that is closed, which epoll has forgotten itself.
		_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, w.fd, nil)
		w.release()
	case watchBroken:
	default:
		return
	}
	w.state = watchFree
	p.ended.push(event{kind: eventGone, id: uint64(id)})
}

func (w *pollWatch) release() {
	if w.own {
		_ = unix.Close(w.fd)
		w.own = false
	}
}

// pending reports whether reap has something to report.
func (p *poller) pending() bool { return p.next < p.count || p.ended.len() > 0 }

// wait fetches what has been signalled and, if block is set, sleeps until something is.
func (p *poller) wait(block bool) error {
	if p.next < p.count {
		return nil
	}
	p.next, p.count = 0, 0
	n, errno := epollWait(p.fd, p.ready[:], block)
	switch errno {
	case 0:
		p.count = n
	case unix.EINTR:
	default:
		return fmt.Errorf("aio: epoll_wait: %w", errno)
	}
	return nil
}

// reap stores what has happened to watches and returns how many events it stored: signals
// first, so that nothing follows the end of a watch.
func (p *poller) reap(events []event) int {
	n := 0
	for ; n < len(events) && p.next < p.count; p.next++ {
		if e := &p.ready[p.next]; e.Pad != pollWake {
			events[n] = event{kind: eventSignal, id: uint64(e.Fd)}
			n++
		}
	}
	for ; n < len(events) && p.ended.len() > 0; n++ {
		events[n] = p.ended.pop()
	}
	return n
}

func (p *poller) close() error {
	for i := range p.watches {
		p.watches[i].release()
	}
	err := unix.Close(p.wake)
	if e := unix.Close(p.fd); err == nil {
		err = e
	}
	return err
}
