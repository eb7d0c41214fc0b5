package aio

import "testing"

// pollingEngine is an engine over a fake backend that looks before it sleeps, on a clock that a
// look at it advances.
func pollingEngine(t *testing.T) (*fakeBackend, *Engine) {
	f := newFake(t, 4096)
	e := f.engine(0)
	e.check = true
	now := int64(second)
	e.timer.now = func() int64 { now += 100; return now }
	e.forGuest, e.forDisk = lookout{pollGuest, pollGuest}, lookout{pollDisk, pollDisk}
	return f, e
}

// promptQueue has the next request a few looks after the last one was answered, until there
// are none left. Its guest never kicks.
type promptQueue struct {
	*testQueue
	left, looks, armed int
}

func (q *promptQueue) Pending() bool {
	if q.looks++; q.looks%3 == 0 && q.left > 0 && !q.testQueue.Pending() {
		q.left--
		q.testQueue.add(reads(1)...)
	}
	return q.testQueue.Pending()
}

func (q *promptQueue) EnableKicks() bool {
	q.armed++
	return q.testQueue.EnableKicks()
}

func TestPromptGuestNeedsNoKicks(t *testing.T) {
	f, e := pollingEngine(t)
	q := &promptQueue{testQueue: newTestQueue(t), left: 50}
	q.add(reads(1)...)
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 4})
	f.rest(e)
	if n := len(q.take()); n != 51 {
		t.Errorf("%d answers, want 51", n)
	}
	// Once for every request while it is in flight, for then the thread sleeps at once. In between not.
	if q.armed > 51+1 || !q.kicked {
		t.Errorf("kicks were enabled %d times for 51 requests; in the end: %v", q.armed, q.kicked)
	}
}

// The time follows the sleeps: it grows with short ones and is soon 0 with long ones.
func TestLookoutAdapts(t *testing.T) {
	l := lookout{most: pollGuest}
	for _, want := range []int64{2000, 4000, 8000, 16000, 16000} {
		if l.slept(pollGuest - 1); l.time != want {
			t.Errorf("after a short sleep %d, want %d", l.time, want)
		}
	}
	for _, want := range []int64{8000, 4000, 2000, 1000, 0, 0} {
		if l.slept(pollGuest); l.time != want {
			t.Errorf("after a long sleep %d, want %d", l.time, want)
		}
	}
}

// Beside a few requests in flight the thread looks for a time, with kicks off, and then enables
// them. It doesn't if they are many, or another thread is busy with one.
func TestLookingBesideRequestsInFlight(t *testing.T) {
	for _, c := range []struct {
		name  string
		busy  int
		aided bool
		looks bool
	}{
		{"few", pollInFlight - 1, false, true},
		{"many", pollInFlight, false, false},
		{"on another thread", 1, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, e := pollingEngine(t)
			f.script, f.aided = holdAll, c.aided
			q, busy := &promptQueue{testQueue: newTestQueue(t)}, newTestQueue(t)
			busy.add(reads(c.busy)...)
			attach(t, e, PortConfig{Name: "busy", Queues: []Queue{busy}, Demand: 2 * pollInFlight})
			p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 4})
			f.rest(e)
			e.forDisk.time, q.looks = pollDisk, 0
			q.add(reads(1)...)
			f.signal(p.queues[0])
			f.rest(e)
			if looked := q.looks > 1; looked != c.looks || !q.kicked || !busy.kicked {
				t.Errorf("%d looks, kicks %v and %v", q.looks, q.kicked, busy.kicked)
			}
			if len(f.held) != c.busy+1 {
				t.Errorf("%d operations reached the disk", len(f.held))
			}
		})
	}
}

// What the disk answers while the thread looks is answered to the guest without a sleep.
func TestDiskAnswersDuringTheLook(t *testing.T) {
	f, e := pollingEngine(t)
	f.script = holdAll
	q := newTestQueue(t)
	q.add(reads(1)...)
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 4})
	now, looks := e.timer.now, 0
	e.timer.now = func() int64 { // each look at the clock is one of the thread's
		if looks++; looks == 20 && len(f.held) > 0 {
			f.letGo(1)
		}
		return now()
	}
	for range 5 {
		f.slept = false
		e.turn()
		if f.slept {
			t.Fatal("the thread slept")
		}
		if len(q.take()) == 1 {
			return
		}
	}
	t.Error("no answer")
}

// An operation that blocks a thread keeps the engine from looking until it has been reaped.
func TestUnaided(t *testing.T) {
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	for _, kind := range []EngineKind{EngineUring, EngineNative, EngineThreads} {
		t.Run(engineNames[kind], func(t *testing.T) {
			lockThread(t)
			b, _, err := openers[kind](minCapacity)
			must(t, err)
			if !b.unaided() {
				t.Error("with nothing in flight")
			}
			for range 3 {
				b.submit(&operation{code: opSync, fd: fd})
				if b.unaided() {
					t.Error("not beside a flush")
				}
				nextEvent(t, b)
			}
			if !b.unaided() {
				t.Error("not when all has been reaped")
			}
			must(t, b.close())
		})
	}
}
