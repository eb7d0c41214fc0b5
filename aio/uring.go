package aio

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// batch is the size of the submission queue: the most requests one system call
	// submits. It is a constant and has nothing to do with capacity: large batches hold
	// back both the first request of the batch and the completions behind it. A guest that
	// keeps 64 requests outstanding should find half of them done while the rest is under way.
	batch = 32

	// cqSlack is what the completion queue holds beside one entry for each credit: kicks,
	// wakes, the timer and answers to removals. A kick takes an entry each time the kernel looks at
	// its poll, usually one per wait. If a guest manages to fill it, the kernel keeps the
	// rest in a list and hands it over with the next wait (IORING_FEAT_NODROP).
	cqSlack = 1024

	// maxTransfer is the most one read or write of a single buffer asks for, in bytes;
	// the rest follows as after a short transfer. The kernel's own limit is just under 2 GiB.
	maxTransfer = 1 << 30
)

// What an entry's user data says: kind in the top byte, below it a slot's id or a watch's.
const (
	userOperation = uint64(iota) << 56
	userTried     // an operation too, that was asked not to block
	userHanded    // one that was handed over to the kernel's threads
	userWatch
	userRemoval
	userWake
	userKind = uint64(0xff) << 56
)

// ring is the io_uring backend.
//
//	completion queue: ≥ credits + cqSlack entries of 16 bytes, rounded up by the kernel to a
//	power of two: 32 KiB for up to 1024 credits. It grows and shrinks with them (Linux 6.13);
//	where it can't it is made for the engine's limit, 1 MiB for 32768
//	submission queue: batch entries of 64 bytes
//
// Polls are multishot and edge-triggered: each signal of an eventfd leaves a completion
// while the poll stays armed, and the eventfd need never be read. When the kernel ends a
// poll (no IORING_CQE_F_MORE) it is armed again before the next wait; arming reports the
// present state first, so nothing that came between is lost.
//
// What blocks goes to other threads, of which there are two sets. Fsync and fallocate go to ebb's workers, which are shared out among files.
// Transfers stay with the kernel's, which cost half as much or less, and are there for all files
// together: as soon as a slow disk's requests have used them up, the others' wait for that disk. So shareWorkers bounds them; what is beyond that
// goes to ebb's workers, too.
type ring struct {
	fd             int
	rings, entries []byte // mapped memory behind what follows

	sqHead, sqTail *uint32 // head is the kernel's
	sqFlags        *uint32 // the kernel's
	sqes           []sqe
	tail           uint32 // ours; the kernel sees it in wait

	cqHead, cqTail *uint32 // tail is the kernel's
	cqes           []cqe
	resizable      bool   // as far as its setup goes: newRing asks the kernel
	wanted         uint32 // completion queue entries, from the next wait on

	workers *workers
	wake    int  // eventfd: ends a sleep, as the workers do
	woken   bool // its poll is armed
	threads int  // the kernel's, as it was last told; 0: never
	handed  int  // operations in flight that we handed over to those

	watches []ringWatch  // by id
	control fifo[uint32] // watches to arm or to remove in the next wait
	gone    fifo[uint32] // watches that ended without the kernel
}

type ringWatch struct {
	fd    int32
	state watchState
}

//	           watch          wait             unwatch             wait
//	watchFree ──────► watchArm ───► watchArmed ───────► watchRemove ───► watchRemoving ──► gone
//	                     ▲              │
//	                     └── poll ended ┘ (refused: watchBroken)
//
// unwatch in watchArm or watchBroken, where the kernel has no poll, goes straight to gone.
type watchState uint8

const (
	watchFree watchState = iota
	watchArm
	watchArmed
	watchBroken
	watchRemove
	watchRemoving
)

// ringSetups are the ways to make a ring, best first: a kernel answers EINVAL to flags it
// doesn't know. Deferred task work runs completions on our thread only while it waits.
var ringSetups = []uint32{
	setupSingleIssuer | setupDeferTaskrun | setupTaskrunFlag | setupSubmitAll | setupNoSQArray, // Linux 6.6
	setupSingleIssuer | setupDeferTaskrun | setupTaskrunFlag | setupSubmitAll,                  // Linux 6.1
	setupCoopTaskrun | setupTaskrunFlag | setupSubmitAll,                                       // Linux 5.19
	0,
}

// newRing makes a ring for at most limit operations in flight and returns the limit it can
// really back, which is lower when the kernel has no memory for so large a completion queue.
// It runs on the thread that will use the ring.
func newRing(limit int) (*ring, int, error) {
	r, err := setUpRing(min(limit, minCapacity))
	if err != nil {
		return nil, 0, err
	}
	if r.resizable {
		if err := r.resizeCQ(uint32(len(r.cqes))); err == nil {
			return r, limit, nil
		}
	}
	if err := r.close(); err != nil {
		return nil, 0, err
	}
	if r, err = setUpRing(limit); err != nil {
		return nil, 0, err
	}
	return r, min(limit, len(r.cqes)-cqSlack), nil
}

// setUpRing makes a ring whose completion queue is large enough for limit operations, or as
// large as there is memory for.
func setUpRing(limit int) (*ring, error) {
	var p ringParams
	for i := 0; ; {
		p = ringParams{
			flags:     ringSetups[i] | setupCQSize | setupClamp,
			cqEntries: uint32(limit + cqSlack),
		}
		fd, errno := ringSetup(batch, &p)
		switch {
		case errno == 0:
			// Resized rings have no index array: where it would be the kernel doesn't say.
			r := &ring{fd: fd, resizable: p.flags&setupNoSQArray != 0}
			if err := r.init(&p); err != nil {
				_ = unix.Close(fd)
				return nil, err
			}
			return r, r.employ()
		case errno == unix.EINVAL && i+1 < len(ringSetups):
			i++
		case errno == unix.ENOMEM && limit > minCapacity:
			// Kernels before 6.10 need the queue in one piece of memory.
			limit /= 2
		case errno == unix.EPERM || errno == unix.ENOSYS || errno == unix.EACCES:
			return nil, fmt.Errorf("io_uring is refused (%w): set the sysctl kernel.io_uring_disabled to 0, "+
				"and in a container let its seccomp profile allow io_uring_setup", errno)
		case errno == unix.EINVAL: // to the plainest ring
			return nil, errTooOld
		default:
			return nil, fmt.Errorf("aio: io_uring_setup: %w", errno)
		}
	}
}

var errTooOld = errors.New("this kernel's io_uring is too old: Linux 5.13 or later is needed")

func (r *ring) init(p *ringParams) error {
	const needed = featSingleMmap | featNoDrop | featSubmitStable | featRsrcTags
	if p.features&needed != needed {
		return errTooOld
	}
	if err := r.mapRings(p); err != nil {
		return fmt.Errorf("aio: map io_uring: %w", err)
	}
	return nil
}

// employ gives a ring its workers. On failure it is closed.
func (r *ring) employ() error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = r.unmap()
		return fmt.Errorf("aio: eventfd: %w", err)
	}
	r.wake, r.workers = wake, newWorkers(wake)
	return nil
}

func (r *ring) room() int {
	return len(r.sqes) - r.queued() - len(r.workers.batch)
}

// queued is the number of entries the kernel has not taken yet.
func (r *ring) queued() int {
	return int(r.tail - atomic.LoadUint32(r.sqHead))
}

// next returns a cleared entry of the submission queue, which must have room.
func (r *ring) next() *sqe {
	s := &r.sqes[r.tail&uint32(len(r.sqes)-1)]
	r.tail++
	*s = sqe{}
	return s
}

func (r *ring) submit(op *operation) {
	if op.code > opWrite || op.async && op.file == handBlocking {
		r.workers.add(op)
		return
	}
	s := r.next()
	s.fd = int32(op.fd)
	s.opcode = rwOpcode(op)
	s.offset = uint64(op.offset)
	s.setBuffers(op.iov)
	switch {
	case op.async || op.file >= handRemote:
		s.userData = userHanded | op.id
		s.flags = sqeAsync
		r.handed++
	case op.nowait:
		s.userData = userTried | op.id
		s.opFlags = unix.RWF_NOWAIT
	default:
		s.userData = userOperation | op.id
	}
	if op.dsync {
		s.opFlags |= unix.RWF_DSYNC
	}
}

func rwOpcode(op *operation) uint8 {
	single := len(op.iov) == 1
	switch {
	case op.code == opRead && single:
		return opcodeRead
	case op.code == opRead:
		return opcodeReadv
	case single:
		return opcodeWrite
	default:
		return opcodeWritev
	}
}

func (r *ring) watch(id uint32, fd int) {
	for int(id) >= len(r.watches) {
		r.watches = append(r.watches, ringWatch{})
	}
	r.watches[id] = ringWatch{fd: int32(fd), state: watchArm}
	r.control.push(id)
}

func (r *ring) unwatch(id uint32) {
	w := &r.watches[id]
	switch w.state {
	case watchArmed:
		w.state = watchRemove
		r.control.push(id)
	case watchArm, watchBroken:
		// In watchArm it is still in control, where controlling skips it.
		w.state = watchFree
		r.gone.push(id)
	}
}

// controlling queues the entries that arm and remove polls, as far as there is room.
func (r *ring) controlling() {
	if !r.woken && r.room() > 0 {
		r.poll(r.wake, userWake)
		r.woken = true
	}
	for r.control.len() > 0 && r.room() > 0 {
		id := r.control.pop()
		switch w := &r.watches[id]; w.state {
		case watchArm:
			r.poll(int(w.fd), userWatch|uint64(id))
			w.state = watchArmed
		case watchRemove:
			s := r.next()
			s.opcode = opcodePollRemove
			s.addr = userWatch | uint64(id)
			s.userData = userRemoval | uint64(id)
			w.state = watchRemoving
		}
	}
}

// poll queues the entry that arms a poll.
func (r *ring) poll(fd int, userData uint64) {
	s := r.next()
	s.opcode = opcodePollAdd
	s.fd = int32(fd)
	s.length = pollAddMulti
	s.opFlags = unix.POLLIN
	s.userData = userData
}

// resize fits the completion queue, with the next wait, and sets the number of workers, and of the kernel's
// threads, of which there would be a few per CPU for all files together. They
// are made only while others are blocked. There are two kinds of them: those for what blocks on files, and those for all else,
// which the kernel takes for transfers that are handed over without a try, as it doesn't look at their files before.
func (r *ring) resize(capacity, workers int) error {
	r.workers.resize(workers)
	if r.resizable {
		r.wanted = uint32(1) << bits.Len32(uint32(capacity+cqSlack-1))
	}
	if workers == r.threads {
		return nil
	}
	r.threads = workers
	if errno := setMaxWorkers(r.fd, &[2]uint32{uint32(workers), uint32(workers)}); errno != 0 && errno != unix.EINVAL { // EINVAL: before Linux 5.15
		return fmt.Errorf("aio: set io_uring's number of workers: %w", errno)
	}
	return nil
}

func (r *ring) forget(fd int) { r.workers.forget(fd) }

// resizeCQ has the kernel make the rings anew with another number of completion queue
// entries, a power of two. What is in flight or completed stays. It fails with EINVAL where
// the kernel can't, and with EOVERFLOW where more has completed than would fit.
//
// Preconditions: nothing is queued.
func (r *ring) resizeCQ(entries uint32) error {
	p := ringParams{sqEntries: batch, cqEntries: entries, flags: setupCQSize | setupClamp}
	if errno := resizeRings(r.fd, &p); errno != 0 {
		return errno
	}
	p.flags |= setupNoSQArray // inherited, which the kernel doesn't say
	rings, sqes := r.rings, r.entries
	if err := r.mapRings(&p); err != nil {
		return fmt.Errorf("%w: %w", errRingLost, err)
	}
	_ = unix.Munmap(rings)
	_ = unix.Munmap(sqes)
	return nil
}

// errRingLost says that the ring can't be reached any more.
var errRingLost = errors.New("aio: the resized io_uring can't be mapped")

// fit resizes the completion queue to what is wanted, unless something is still queued.
func (r *ring) fit() error {
	if r.wanted == 0 || int(r.wanted) == len(r.cqes) {
		r.wanted = 0
		return nil
	}
	if r.queued() > 0 {
		return nil
	}
	// Without memory for it the kernel keeps completions that don't fit in a list.
	if err := r.resizeCQ(r.wanted); errors.Is(err, errRingLost) {
		return err
	}
	r.wanted = 0
	return nil
}

func (r *ring) wait(block bool) error {
	r.workers.flush()
	if !block || !r.workers.sleep() {
		return r.enter(false)
	}
	err := r.enter(true)
	r.workers.awake()
	return err
}

// enter hands the kernel what is queued, and fetches what has completed.
func (r *ring) enter(block bool) error {
	for {
		if err := r.fit(); err != nil {
			return err
		}
		r.controlling()
		atomic.StoreUint32(r.sqTail, r.tail)
		var events uintptr
		if block && r.woken && r.control.len() == 0 && r.gone.len() == 0 && r.wanted == 0 {
			events = 1
		}
		// Events are asked for even when none is waited for: only then does the kernel
		// run deferred work and hand over completions it kept in a list.
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.queued()), events, enterGetEvents, 0, 0)
		switch errno {
		case 0:
			if r.woken && r.control.len() == 0 {
				return nil
			}
		case unix.EINTR, unix.EAGAIN, unix.EBUSY:
			// A signal; no memory for requests just now; completions must be reaped first.
			// What was not taken stays queued for the next wait.
			return nil
		default:
			return fmt.Errorf("aio: io_uring_enter: %w", errno)
		}
	}
}

// pending: wait turns deferred task work into completions.
func (r *ring) pending() bool {
	return r.workers.pending() || r.gone.len() > 0 || *r.cqHead != atomic.LoadUint32(r.cqTail) || atomic.LoadUint32(r.sqFlags)&sqTaskrun != 0
}

// unaided: what blocks in spite of RWF_NOWAIT is not known.
func (r *ring) unaided() bool { return r.handed+r.workers.inFlight == 0 }

func (r *ring) reap(events []event) int {
	n := r.workers.reap(events)
	for ; n < len(events) && r.gone.len() > 0; n++ {
		events[n] = event{kind: eventGone, id: uint64(r.gone.pop())}
	}
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for ; n < len(events) && head != tail; head++ {
		c := &r.cqes[head&uint32(len(r.cqes)-1)]
		switch c.userData & userKind {
		case userHanded:
			r.handed--
			fallthrough
		case userOperation:
			events[n] = event{kind: eventDone, id: c.userData &^ userKind, result: c.result}
			n++
		case userTried:
			events[n] = event{kind: eventDone, id: c.userData &^ userKind, result: tried(c.result)}
			n++
		case userWake:
			r.woken = r.woken && c.flags&cqeMore != 0
		case userWatch:
			if ev, ok := r.polled(uint32(c.userData), c.result, c.flags); ok {
				events[n] = ev
				n++
			}
		case userRemoval:
			// The poll's own last completion counts. Only if the kernel was just then
			// busy with it must it be removed again.
			id := uint32(c.userData)
			if w := &r.watches[id]; unix.Errno(-c.result) == unix.EALREADY && w.state == watchRemoving {
				w.state = watchRemove
				r.control.push(id)
			}
		}
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}

// polled turns the completion of a poll into an event, if it is one for the engine.
func (r *ring) polled(id uint32, result int32, flags uint32) (event, bool) {
	w := &r.watches[id]
	ended := flags&cqeMore == 0
	switch w.state {
	case watchArmed:
		if result < 0 {
			w.state = watchBroken
			return event{kind: eventBroken, id: uint64(id), result: result}, true
		}
		if ended {
			w.state = watchArm
			r.control.push(id)
		}
		return event{kind: eventSignal, id: uint64(id)}, true
	case watchRemove, watchRemoving:
		if ended {
			// From watchRemove it is still in control, where controlling skips it.
			w.state = watchFree
			return event{kind: eventGone, id: uint64(id)}, true
		}
	}
	return event{}, false
}

func (r *ring) close() error {
	r.workers.close()
	err := r.unmap()
	if e := unix.Close(r.wake); err == nil {
		err = e
	}
	return err
}

// unmap gives back what the kernel made.
func (r *ring) unmap() error {
	err := unix.Munmap(r.rings)
	if e := unix.Munmap(r.entries); err == nil {
		err = e
	}
	if e := unix.Close(r.fd); err == nil {
		err = e
	}
	return err
}
