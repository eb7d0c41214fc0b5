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
	e.pollLimit, e.pollTime = pollMost, pollMost
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
func TestPollTimeAdapts(t *testing.T) {
	_, e := pollingEngine(t)
	e.pollTime = 0
	for _, want := range []int64{2000, 4000, 8000, 16000, 16000} {
		if e.slept(pollMost - 1); e.pollTime != want {
			t.Errorf("after a short sleep %d, want %d", e.pollTime, want)
		}
	}
	for _, want := range []int64{8000, 4000, 2000, 1000, 0, 0} {
		if e.slept(pollMost); e.pollTime != want {
			t.Errorf("after a long sleep %d, want %d", e.pollTime, want)
		}
	}
}

// While something is in flight nothing is looked at in vain, and kicks are on.
func TestNoPollingBesideRequestsInFlight(t *testing.T) {
	f, e := pollingEngine(t)
	f.script = holdAll
	q, busy := &promptQueue{testQueue: newTestQueue(t)}, newTestQueue(t)
	busy.add(reads(1)...)
	attach(t, e, PortConfig{Name: "busy", Queues: []Queue{busy}, Demand: 4})
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 4})
	f.rest(e)
	q.add(reads(1)...)
	f.signal(p.queues[0])
	f.rest(e)
	f.held[0], f.held[1] = f.held[1], f.held[0]
	f.letGo(1) // that of a
	f.rest(e)
	if len(q.take()) != 1 || q.looks > 0 || !q.kicked || !busy.kicked {
		t.Errorf("%d looks, kicks %v and %v", q.looks, q.kicked, busy.kicked)
	}
}
