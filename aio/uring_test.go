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

// A kernel that makes the ring, but without what the engine relies on.
func TestOldRing(t *testing.T) {
	for _, lacks := range []uint32{featSingleMmap, featNoDrop, featSubmitStable, featRsrcTags} {
		if err := new(ring).init(&ringParams{features: ^lacks}); err != errTooOld {
			t.Errorf("without feature %#x: %v", lacks, err)
		}
	}
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

func TestCompletionQueueHoldsTheCredits(t *testing.T) {
	lockThread(t)
	for _, limit := range []int{1, 64, 1024, maxCapacity} {
		r, got, err := newRing(limit)
		must(t, err)
		small := len(r.cqes)
		must(t, r.resize(limit, minWorkers))
		must(t, r.wait(false))
		if got != limit || len(r.cqes) < limit+cqSlack {
			t.Errorf("limit %d: %d, %d entries", limit, got, len(r.cqes))
		}
		must(t, r.resize(minCapacity, minWorkers))
		must(t, r.wait(false))
		if r.resizable && len(r.cqes) != small {
			t.Errorf("limit %d: %d entries at first, %d after shrinking", limit, small, len(r.cqes))
		}
		must(t, r.close())
	}
}

// The queues are made anew while reads hang, others have completed unseen, polls are armed
// and entries are queued: nothing is lost and nothing comes twice.
func TestResizeInFlight(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, maxCapacity)
	if !r.resizable {
		t.Skip("this kernel can't resize an io_uring (Linux 6.13 can)")
	}
	var pipe [2]int
	must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	t.Cleanup(func() { unix.Close(pipe[0]); unix.Close(pipe[1]) })
	zero, err := os.Open("/dev/zero")
	must(t, err)
	defer zero.Close()
	fd := eventfd(t)
	r.watch(1, fd)
	b := make([]byte, 8)
	next := uint64(0)
	submit := func(fd, n int) {
		for range n {
			if r.room() == 0 {
				must(t, r.wait(false))
			}
			r.submit(&operation{id: next, code: opRead, fd: fd, file: handLarge, iov: []unix.Iovec{iovec(b)}, offset: -1})
			next++
		}
	}
	sizes := []int{4000, 100, maxCapacity, 64, 8000, 64}
	submit(pipe[0], 50)
	for _, capacity := range sizes {
		submit(int(zero.Fd()), 30)
		must(t, r.wait(false)) // completed, not reaped
		submit(int(zero.Fd()), 20)
		must(t, r.resize(capacity, minWorkers)) // with entries queued
		must(t, r.wait(false))
		must(t, r.wait(false))
		if len(r.cqes) < capacity+cqSlack || len(r.cqes) > 4*(capacity+cqSlack) {
			t.Fatalf("%d entries for %d credits", len(r.cqes), capacity)
		}
		signal(t, fd)
	}
	_, err = unix.Write(pipe[1], make([]byte, 50*len(b)))
	must(t, err)
	seen, signals := make([]bool, next), 0
	for left := len(seen); left > 0; {
		switch ev := nextEvent(t, r); {
		case ev.kind == eventSignal:
			signals++
		case ev.kind != eventDone || ev.result != int32(len(b)) || seen[ev.id]:
			t.Fatalf("%+v, seen %v", ev, seen[ev.id])
		default:
			seen[ev.id] = true
			left--
		}
	}
	if signals == 0 {
		t.Error("the poll is lost")
	}
}

// The kernel has as many threads as the last resize says, whether it was told anew or not.
func TestKernelWorkers(t *testing.T) {
	lockThread(t)
	// Whether the kernel can be told (Linux 5.15) is not asked by the call that is tested: a wrong one has the same answer.
	fd, errno := ringSetup(1, &ringParams{flags: setupSubmitAll})
	told := errno != unix.EINVAL // else it is one before Linux 5.18, and perhaps one that can't be
	unix.Close(fd)               //nolint:errcheck // if there is none, newRing says why
	r, _, err := newRing(minCapacity)
	must(t, err)
	defer r.close()
	for _, workers := range []int{100, 200, 200, 100} {
		must(t, r.resize(minCapacity, workers)) // also where it can't
		if !told {
			continue
		}
		var now [2]uint32 // zeroes only ask
		if errno := setMaxWorkers(r.fd, &now); errno != 0 || now != [2]uint32{uint32(workers), uint32(workers)} {
			t.Errorf("%d workers, %v, want %d of either kind", now, errno, workers)
		}
	}
}
