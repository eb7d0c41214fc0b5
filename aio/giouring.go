//go:build giouring

package aio

import (
	"fmt"
	"math/bits"
	"syscall"

	"github.com/pawelgaczynski/giouring"
	"golang.org/x/sys/unix"
)

// giouringBackend is io_uring through the library giouring: to compare with, and to show
// that the engine doesn't depend on how its ring is made. It is in builds with the tag
// giouring only, as `--aio giouring`, and those need -ldflags=-checklinkname=0.
//
// Why the default isn't this: the library links to what Go doesn't export any more, it
// can't give the completion queue a size of its own, and it has bugs one must know:
// an entry keeps the flags of its predecessor (hence the clearing in next), and
// RegisterFiles and RegisterIOWQMaxWorkers hand the kernel values of the wrong width.
type giouringBackend struct {
	ring    *giouring.Ring
	watches []ringWatch // by id; watchArmed, watchBroken, watchRemoving
	gone    fifo[uint32]
	broken  error // of a submission outside of wait
	cqes    [batch]*giouring.CompletionQueueEvent
	reaped  int // of cqes: [reaped:fetched] is still to be handed out
	fetched int
}

func init() {
	engineNames = append(engineNames, "giouring")
	openers = append(openers, func(limit int) (backend, int, error) { return opened(newGiouring(limit)) })
}

func newGiouring(limit int) (*giouringBackend, int, error) {
	g := &giouringBackend{ring: giouring.NewRing()}
	// The completion queue has twice the entries of the submission queue, which so becomes
	// larger than a batch.
	entries := uint32(1) << bits.Len(uint(max(batch, (limit+cqSlack)/2-1)))
	flags := giouring.SetupSingleIssuer | giouring.SetupDeferTaskrun | giouring.SetupSubmitAll | giouring.SetupClamp
	if err := g.ring.QueueInit(entries, flags); err != nil {
		return nil, 0, fmt.Errorf("aio: giouring: io_uring_setup: %w", err)
	}
	return g, limit, nil
}

func (g *giouringBackend) room() int { return max(0, batch-int(g.ring.SQReady())) }

// next returns a cleared entry of the submission queue.
func (g *giouringBackend) next() *giouring.SubmissionQueueEntry {
	s := g.ring.GetSQE()
	for s == nil { // very many watches at once
		if _, err := g.ring.Submit(); err != nil && !passing(err) {
			g.broken = err
		}
		s = g.ring.GetSQE()
	}
	*s = giouring.SubmissionQueueEntry{}
	return s
}

func (g *giouringBackend) submit(op *operation) {
	s := g.next()
	var b sqe
	switch op.code {
	case opRead, opWrite:
		b.setBuffers(op.iov)
		switch rwOpcode(op) {
		case opcodeRead:
			s.PrepareRead(op.fd, uintptr(b.addr), b.length, uint64(op.offset))
		case opcodeReadv:
			s.PrepareReadv(op.fd, uintptr(b.addr), b.length, uint64(op.offset))
		case opcodeWrite:
			s.PrepareWrite(op.fd, uintptr(b.addr), b.length, uint64(op.offset))
		case opcodeWritev:
			s.PrepareWritev(op.fd, uintptr(b.addr), b.length, uint64(op.offset))
		}
		if op.dsync {
			s.OpcodeFlags = unix.RWF_DSYNC
		}
	case opSync:
		s.PrepareFsync(op.fd, giouring.FsyncDatasync)
	case opAllocate:
		s.PrepareFallocate(op.fd, int(op.mode), uint64(op.offset), uint64(op.length))
	}
	if op.async {
		s.Flags = giouring.SqeAsync
	}
	s.UserData = userOperation | op.id
}

func (g *giouringBackend) watch(id uint32, fd int) {
	for int(id) >= len(g.watches) {
		g.watches = append(g.watches, ringWatch{})
	}
	g.watches[id] = ringWatch{fd: int32(fd)}
	g.arm(id)
}

func (g *giouringBackend) arm(id uint32) {
	w := &g.watches[id]
	w.state = watchArmed
	s := g.next()
	s.PreparePollMultishot(int(w.fd), unix.POLLIN)
	s.UserData = userWatch | uint64(id)
}

func (g *giouringBackend) unwatch(id uint32) {
	w := &g.watches[id]
	switch w.state {
	case watchArmed:
		w.state = watchRemoving
		g.remove(id)
	case watchBroken:
		w.state = watchFree
		g.gone.push(id)
	}
}

func (g *giouringBackend) remove(id uint32) {
	s := g.next()
	s.PreparePollRemove(userWatch | uint64(id))
	s.UserData = userRemoval | uint64(id)
}

// resize lets the kernel have as many threads as the default ring's does.
func (g *giouringBackend) resize(_, workers int) error {
	// The kernel takes two 32-bit numbers: the second, 0, is the first's upper half.
	if _, err := g.ring.RegisterIOWQMaxWorkers([]uint{uint(workers), 0}); err != nil {
		return fmt.Errorf("aio: giouring: set the number of workers: %w", err)
	}
	return nil
}

func (g *giouringBackend) forget(int) {}

func (g *giouringBackend) wait(block bool) error {
	if g.broken != nil {
		return fmt.Errorf("aio: giouring: io_uring_enter: %w", g.broken)
	}
	var err error
	if block && g.gone.len() == 0 {
		_, err = g.ring.SubmitAndWait(1)
	} else {
		_, err = g.ring.SubmitAndGetEvents()
	}
	if err != nil && !passing(err) {
		return fmt.Errorf("aio: giouring: io_uring_enter: %w", err)
	}
	return nil
}

// passing reports whether an error is no reason not to go on: see ring.wait.
func passing(err error) bool {
	return err == syscall.EINTR || err == syscall.EAGAIN || err == syscall.EBUSY
}

func (g *giouringBackend) pending() bool { return g.ring.CQReady() > 0 }

// unaided: deferred task work can't be seen, so that looking for it would be in vain.
func (g *giouringBackend) unaided() bool { return false }

func (g *giouringBackend) reap(events []event) int {
	n := 0
	for ; n < len(events) && g.gone.len() > 0; n++ {
		events[n] = event{kind: eventGone, id: uint64(g.gone.pop())}
	}
	for n < len(events) {
		if g.reaped == g.fetched {
			g.ring.CQAdvance(uint32(g.fetched))
			g.reaped, g.fetched = 0, 0
			g.fetched = int(g.ring.PeekBatchCQE(g.cqes[:]))
			if g.fetched == 0 {
				break
			}
		}
		c := g.cqes[g.reaped]
		g.reaped++
		if ev, ok := g.completion(c.UserData, c.Res, c.Flags); ok {
			events[n] = ev
			n++
		}
	}
	return n
}

// completion turns a completion into an event, if it is one for the engine.
func (g *giouringBackend) completion(user uint64, result int32, flags uint32) (event, bool) {
	id := uint32(user)
	switch user & userKind {
	case userOperation:
		return event{kind: eventDone, id: user &^ userKind, result: result}, true
	case userRemoval:
		if w := &g.watches[id]; unix.Errno(-result) == unix.EALREADY && w.state == watchRemoving {
			g.remove(id)
		}
		return event{}, false
	}
	w, ended := &g.watches[id], flags&giouring.CQEFMore == 0
	switch {
	case w.state == watchArmed && result < 0:
		w.state = watchBroken
		return event{kind: eventBroken, id: uint64(id), result: result}, true
	case w.state == watchArmed:
		if ended {
			g.arm(id)
		}
		return event{kind: eventSignal, id: uint64(id)}, true
	case w.state == watchRemoving && ended:
		w.state = watchFree
		return event{kind: eventGone, id: uint64(id)}, true
	}
	return event{}, false
}

func (g *giouringBackend) close() error {
	g.ring.QueueExit()
	return nil
}
