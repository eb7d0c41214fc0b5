package aio

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func newTestRing(t testing.TB, limit int) *ring {
	r, _, err := newRing(limit)
	must(t, err)
	t.Cleanup(func() { must(t, r.close()) })
	return r
}

// next waits for one event. Ring tests run on one goroutine, which LockOSThread keeps on
// the ring's thread.
func (r *ring) nextEvent(t testing.TB) event {
	t.Helper()
	var ev [1]event
	for range 1000 {
		if r.reap(ev[:]) == 1 {
			return ev[0]
		}
		must(t, r.wait(true))
	}
	t.Fatal("no event")
	panic("unreachable")
}

// quiet fails if there is an event.
func (r *ring) quiet(t testing.TB) {
	t.Helper()
	must(t, r.wait(false))
	var ev [1]event
	if r.reap(ev[:]) != 0 {
		t.Fatalf("unexpected event %+v", ev[0])
	}
}

func eventfd(t testing.TB) int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func signal(t testing.TB, fd int) {
	_, err := unix.Write(fd, one)
	must(t, err)
}

func TestWatch(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	a, b := eventfd(t), eventfd(t)
	r.watch(3, a)
	r.watch(4, b)
	r.quiet(t)
	for range 3 { // edges count, though nobody reads the eventfd
		signal(t, a)
		if ev := r.nextEvent(t); ev != (event{kind: eventSignal, id: 3}) {
			t.Fatalf("%+v", ev)
		}
		r.quiet(t)
	}
	r.unwatch(3)
	if ev := r.nextEvent(t); ev != (event{kind: eventGone, id: 3}) {
		t.Fatalf("%+v", ev)
	}
	signal(t, a)
	r.quiet(t)

	r.watch(3, a) // signalled before: said at once
	if ev := r.nextEvent(t); ev != (event{kind: eventSignal, id: 3}) {
		t.Fatalf("%+v", ev)
	}
	r.unwatch(3)
	r.unwatch(4)
	for range 2 {
		if ev := r.nextEvent(t); ev.kind != eventGone {
			t.Fatalf("%+v", ev)
		}
	}
	r.quiet(t)
}

func TestUnwatchBeforeArmed(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	fd := eventfd(t)
	for range 3 {
		r.watch(1, fd)
		r.unwatch(1)
		if ev := r.nextEvent(t); ev != (event{kind: eventGone, id: 1}) {
			t.Fatalf("%+v", ev)
		}
	}
	r.watch(1, fd)
	r.unwatch(1)
	r.watch(2, fd)
	if ev := r.nextEvent(t); ev != (event{kind: eventGone, id: 1}) {
		t.Fatalf("%+v", ev)
	}
	r.quiet(t)
	signal(t, fd)
	if ev := r.nextEvent(t); ev != (event{kind: eventSignal, id: 2}) {
		t.Fatalf("%+v", ev)
	}
	r.quiet(t)
}

// A poll the kernel ended is armed again, and says what came between.
func TestPollIsArmedAgain(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	fd := eventfd(t)
	r.watch(1, fd)
	r.quiet(t)
	if ev, ok := r.polled(1, 1, 0); !ok || ev.kind != eventSignal { // without IORING_CQE_F_MORE
		t.Fatalf("%+v", ev)
	}
	if r.watches[1].state != watchArm || r.control.len() != 1 {
		t.Fatalf("state %d", r.watches[1].state)
	}
	signal(t, fd)
	if ev := r.nextEvent(t); ev != (event{kind: eventSignal, id: 1}) {
		t.Fatalf("%+v", ev)
	}
}

func TestWatchOfABadDescriptor(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	r.watch(1, 1<<20)
	if ev := r.nextEvent(t); ev != (event{kind: eventBroken, id: 1, result: -int32(unix.EBADF)}) {
		t.Fatalf("%+v", ev)
	}
	r.unwatch(1)
	if ev := r.nextEvent(t); ev != (event{kind: eventGone, id: 1}) {
		t.Fatalf("%+v", ev)
	}
	r.quiet(t)
}

// More watches than fit into the submission queue.
func TestManyWatches(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	var fds []int
	for i := range 3*batch + 1 {
		fds = append(fds, eventfd(t))
		r.watch(uint32(i), fds[i])
	}
	r.quiet(t)
	for i, fd := range fds {
		signal(t, fd)
		if ev := r.nextEvent(t); ev != (event{kind: eventSignal, id: uint64(i)}) {
			t.Fatalf("%+v", ev)
		}
	}
	for i := range fds {
		r.unwatch(uint32(i))
	}
	for range fds {
		if ev := r.nextEvent(t); ev.kind != eventGone {
			t.Fatalf("%+v", ev)
		}
	}
	r.quiet(t)
}

// More completions than the completion queue holds: the kernel keeps the rest and hands
// it over. The engine's sizing is such that this doesn't happen, but for guests that kick
// like mad.
func TestCompletionsOverflow(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	f, err := os.Open("/dev/zero")
	must(t, err)
	defer f.Close()
	b := make([]byte, 8)
	op := operation{code: opRead, fd: int(f.Fd()), iov: []unix.Iovec{iovec(b)}}
	n := len(r.cqes) + 1000
	for i := range n {
		if r.room() == 0 {
			must(t, r.wait(false))
		}
		if r.room() == 0 {
			t.Fatalf("no room after %d", i)
		}
		op.id = uint64(i)
		r.submit(&op)
	}
	seen := make([]bool, n)
	for range n {
		ev := r.nextEvent(t)
		if ev.kind != eventDone || ev.result != 8 || seen[ev.id] {
			t.Fatalf("%+v", ev)
		}
		seen[ev.id] = true
	}
	r.quiet(t)
}

func TestCompletionQueueHoldsTheLimit(t *testing.T) {
	lockThread(t)
	for _, limit := range []int{1, 64, 1024, maxCapacity} {
		r, got, err := newRing(limit)
		must(t, err)
		if got != limit || len(r.cqes) < limit+cqSlack {
			t.Errorf("limit %d: %d, %d entries", limit, got, len(r.cqes))
		}
		must(t, r.close())
	}
}
