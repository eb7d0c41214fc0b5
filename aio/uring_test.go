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

// A poll the kernel ended is armed again, and says what came between.
func TestPollIsArmedAgain(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	fd := eventfd(t)
	r.watch(1, fd)
	quiet(t, r)
	if ev, ok := r.polled(1, 1, 0); !ok || ev.kind != eventSignal { // without IORING_CQE_F_MORE
		t.Fatalf("%+v", ev)
	}
	if r.watches[1].state != watchArm || r.control.len() != 1 {
		t.Fatalf("state %d", r.watches[1].state)
	}
	signal(t, fd)
	if ev := nextEvent(t, r); ev != (event{kind: eventSignal, id: 1}) {
		t.Fatalf("%+v", ev)
	}
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
		ev := nextEvent(t, r)
		if ev.kind != eventDone || ev.result != 8 || seen[ev.id] {
			t.Fatalf("%+v", ev)
		}
		seen[ev.id] = true
	}
	quiet(t, r)
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
