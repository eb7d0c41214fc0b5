package aio

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// holdAll keeps every operation in flight until it is let go.
func holdAll(*operation) (int32, verdict) { return 0, hold }

// endless makes a queue that always has one more 512-byte read.
func endless(t testing.TB) *testQueue {
	q, b, tag := newTestQueue(t), make([]byte, 512), uint32(0)
	q.refill = func() (testRequest, bool) {
		tag++
		return rw(Read, tag, 0, b), true
	}
	return q
}

func reads(n int) []testRequest {
	var rs []testRequest
	b := make([]byte, 512)
	for i := range n {
		rs = append(rs, rw(Read, uint32(i), 0, b))
	}
	return rs
}

func TestQueueIsLookedAtOnceWithoutKick(t *testing.T) {
	f := newFake(t, 4096)
	e := f.engine(0)
	q := newTestQueue(t)
	q.add(reads(3)...)
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 4})
	f.rest(e)
	if got := q.take(); len(got) != 3 {
		t.Fatalf("answers: %v", got)
	}
}

// Only when a disk has gone may its descriptor be another file.
func TestDetachedFileIsForgotten(t *testing.T) {
	f := newFake(t, 4096)
	e := f.engine(0)
	var ports []*Port
	for i := range 3 {
		ports = append(ports, attach(t, e, PortConfig{Name: "a", FD: 1000 + i, Queues: []Queue{newTestQueue(t)}, Demand: 100}))
	}
	f.rest(e)
	if len(f.forgot) > 0 {
		t.Errorf("forgot %d with all of them attached", f.forgot)
	}
	gone := false
	ports[1].Detach(func() {
		gone = true
		if !slices.Equal(f.forgot, []int{1001}) {
			t.Errorf("forgot %d when it has gone", f.forgot)
		}
	})
	if f.rest(e); !gone {
		t.Error("the disk is still there")
	}
}

func TestIdleQueuesAreNotLookedAt(t *testing.T) {
	f := newFake(t, 4096)
	e := f.engine(0)
	busy, idle := newTestQueue(t), newTestQueue(t)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{busy, idle}, Demand: 4})
	f.rest(e)
	before := idle.pops
	for range 50 {
		busy.add(reads(1)...)
		f.signal(p.queues[0])
		f.rest(e)
	}
	if idle.pops != before {
		t.Errorf("the idle queue was looked at %d times", idle.pops-before)
	}
	if got := len(busy.take()); got != 50 {
		t.Errorf("%d answers", got)
	}
}

// A request that arrives between the look that found nothing and the arming of the kick
// brings no kick: EnableKicks says so.
func TestRequestBesideEnableKicks(t *testing.T) {
	f := newFake(t, 4096)
	e := f.engine(0)
	q := newTestQueue(t)
	lq := &lateQueue{testQueue: q, late: 5}
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{lq}, Demand: 4})
	f.rest(e)
	if got := len(q.take()); got != 5 {
		t.Fatalf("%d answers", got)
	}
}

// lateQueue gets a request in that very moment.
type lateQueue struct {
	*testQueue
	late int
}

func (q *lateQueue) EnableKicks() bool {
	if q.late > 0 {
		q.late--
		q.testQueue.add(reads(1)...)
	}
	return q.testQueue.EnableKicks()
}

func TestNothingIsPoppedWithoutCredit(t *testing.T) {
	f := newFake(t, 4096)
	f.script = holdAll
	e := f.engine(10)
	q := newTestQueue(t)
	q.add(reads(25)...)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 256})
	f.rest(e)
	if len(f.held) != 10 || q.waiting() != 15 {
		t.Fatalf("%d in flight, %d in the queue", len(f.held), q.waiting())
	}
	for left := 15; left > 0; left-- {
		f.letGo(1)
		f.rest(e)
		if len(f.held) != 10 || q.waiting() != left-1 {
			t.Fatalf("%d in flight, %d in the queue, want 10 and %d", len(f.held), q.waiting(), left-1)
		}
	}
	f.letGo(10)
	f.rest(e)
	if got := len(q.take()); got != 25 || p.Stats().InFlight != 0 {
		t.Errorf("%d answers, %d in flight", got, p.Stats().InFlight)
	}
}

// A device gets its first requests before the others have been popped, and then ever more at a
// time; but nothing is handed over early that other threads carry out, or that is done at once.
func TestFeed(t *testing.T) {
	for _, c := range []struct {
		name     string
		aided    bool
		handOver handOver
		want     string
	}{
		{"device", false, handBlocking, "[2 2 4 8 16 18]"},
		{"other threads", true, handBlocking, "[32 18]"},
		{"memory", false, handLarge, "[32 18]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, 4096)
			f.script, f.aided = holdAll, c.aided
			e := f.engine(0)
			q := newTestQueue(t)
			q.add(reads(50)...)
			attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64}).handOver = c.handOver
			f.rest(e)
			if got := fmt.Sprint(f.batches); got != c.want {
				t.Errorf("handed over %s, want %s", got, c.want)
			}
		})
	}
}

func TestNothingIsPoppedWithoutRoom(t *testing.T) {
	f := newFake(t, 4096)
	f.batch, f.aided = 4, true // not handed over earlier
	e := f.engine(0)
	q := newTestQueue(t)
	q.add(reads(19)...)
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 32})
	e.turn() // fakeBackend.submit fails the test where there is no room
	if got := len(f.log); got != 4 {
		t.Errorf("%d submitted in one turn", got)
	}
	f.rest(e)
	if got := len(q.take()); got != 19 {
		t.Errorf("%d answers", got)
	}
}

// One disk's queue never gets empty, and the engine has few credits: the other disk gets
// every second one.
func TestGreedyPortDoesNotStarveTheOther(t *testing.T) {
	for _, credits := range []int{1, 3, 64} {
		t.Run(fmt.Sprint(credits), func(t *testing.T) {
			f := newFake(t, 4096)
			f.script, f.keepLog = holdAll, false
			e := f.engine(credits)
			greedy, modest := endless(t), endless(t)
			a := attach(t, e, PortConfig{Name: "greedy", FD: 1, Queues: []Queue{greedy, endless(t), endless(t)}, Demand: 1024})
			b := attach(t, e, PortConfig{Name: "modest", FD: 2, Queues: []Queue{modest}, Demand: 1024})
			for range 2000 {
				f.rest(e)
				f.letGo(min(1, len(f.held)))
			}
			na, nb := a.Stats().Read.Requests, b.Stats().Read.Requests
			if na+nb < 1900 || nb < 900 || na < 900 {
				t.Errorf("greedy %d, modest %d", na, nb)
			}
		})
	}
}

func TestQueuesOfAPortTakeTurns(t *testing.T) {
	f := newFake(t, 4096)
	f.script, f.keepLog = holdAll, false
	e := f.engine(1)
	queues := []*testQueue{endless(t), endless(t), endless(t)}
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{queues[0], queues[1], queues[2]}, Demand: 1024})
	for range 301 {
		f.rest(e)
		f.letGo(min(1, len(f.held)))
	}
	for i, q := range queues {
		if n := len(q.take()); n < 99 || n > 101 {
			t.Errorf("queue %d: %d answers", i, n)
		}
	}
}

// A guest can ask without end for what needs no disk: the pass ends all the same, and
// the answers are published in batches.
func TestAnsweredRequestsAreBounded(t *testing.T) {
	f := newFake(t, 4096)
	e := f.engine(0)
	q := newTestQueue(t)
	q.refill = func() (testRequest, bool) { return testRequest{answered: true}, true }
	other := endless(t)
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 16})
	attach(t, e, PortConfig{Name: "b", Queues: []Queue{other}, Demand: 16})
	for range 10 {
		pops, publishes := q.pops, q.publishes
		e.turn()
		if n := q.pops - pops; n > passBudget {
			t.Fatalf("%d looks in one turn", n)
		}
		if n := q.publishes - publishes; n != 1 {
			t.Fatalf("published %d times in one turn", n)
		}
	}
	if n := len(other.take()); n < 10*portBurst/2 {
		t.Errorf("the other disk got %d requests done", n)
	}
}

func TestOnePublishForEachBatch(t *testing.T) {
	f := newFake(t, 4096)
	f.script = holdAll
	e := f.engine(0)
	q := newTestQueue(t)
	q.add(reads(40)...)
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64})
	f.rest(e)
	f.letGo(40)
	f.rest(e)
	if q.publishes != 1 || len(q.take()) != 40 {
		t.Errorf("published %d times", q.publishes)
	}
}

func TestWindow(t *testing.T) {
	f := newFake(t, 4096)
	f.script = holdAll
	e := f.engine(0)
	q := newTestQueue(t)
	q.add(reads(20)...)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64, Held: true})
	step := func(window, want int) {
		t.Helper()
		if window >= 0 {
			p.SetWindow(CausePause, window)
		}
		f.rest(e)
		if len(f.held) != want || p.Stats().InFlight != want {
			t.Fatalf("window %d: %d in flight, want %d", p.Stats().Window, len(f.held), want)
		}
	}
	step(-1, 0) // attached held
	step(3, 3)
	step(5, 5)
	step(2, 5) // shrunk below what is in flight: nothing new
	f.letGo(3)
	step(-1, 2)
	f.letGo(1)
	step(-1, 2)
	step(0, 2)
	f.letGo(2)
	step(-1, 0)
	for range 3 { // kicks on a held port are kept
		q.add(reads(1)...)
		f.signal(p.queues[0])
		step(-1, 0)
	}
	waits := f.waits
	f.rest(e)
	if f.waits != waits+1 {
		t.Errorf("a held port keeps the engine busy")
	}
	step(Unlimited, 17)
	f.letGo(17)
	step(-1, 0)
	if got := len(q.take()); got != 23 {
		t.Errorf("%d answers", got)
	}
}

// A kick while the port is held, on a queue that had been found empty before.
func TestKickOnHeldPort(t *testing.T) {
	f := newFake(t, 4096)
	e := f.engine(0)
	q := newTestQueue(t)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64})
	f.rest(e)
	p.SetWindow(CausePause, 0)
	f.rest(e)
	q.add(reads(2)...)
	f.signal(p.queues[0])
	f.rest(e)
	if got := q.waiting(); got != 2 {
		t.Fatalf("%d requests left in the queue of a held port", got)
	}
	p.SetWindow(CausePause, Unlimited)
	f.rest(e)
	if got := len(q.take()); got != 2 {
		t.Errorf("%d answers", got)
	}
}

// Operations that block a kernel thread are bounded for each port; what is behind them
// waits in its queue, other queues and other ports don't.
func TestLongOperationsAreBounded(t *testing.T) {
	f := newFake(t, 4096)
	f.script = func(op *operation) (int32, verdict) {
		if op.code == opSync {
			return 0, hold
		}
		return 0, succeed
	}
	e := f.engine(0)
	q, second, other := newTestQueue(t), newTestQueue(t), newTestQueue(t)
	for i := range maxLong + 3 {
		q.add(ranged(Flush, uint32(i), 0, 0))
	}
	q.add(reads(1)...)
	second.add(reads(40)...)
	other.add(reads(5)...)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q, second}, Demand: 64})
	attach(t, e, PortConfig{Name: "b", Queues: []Queue{other}, Demand: 64})
	f.rest(e)
	if p.long != maxLong || q.waiting() != 4 || second.waiting() != 0 || len(other.take()) != 5 {
		t.Fatalf("%d long in flight, %d in the queue, %d in the second", p.long, q.waiting(), second.waiting())
	}
	waits, pops := f.waits, q.pops
	f.rest(e)
	if f.waits != waits+1 || q.pops != pops {
		t.Errorf("operations that wait keep the engine busy")
	}
	f.letGo(2)
	f.rest(e)
	if p.long != maxLong || q.waiting() != 2 {
		t.Fatalf("%d long in flight, %d in the queue", p.long, q.waiting())
	}
	f.letGo(2)
	f.rest(e)
	if q.waiting() != 0 {
		t.Errorf("%d in the queue", q.waiting())
	}
	f.letGo(len(f.held))
	f.rest(e)
	if got := p.Stats(); got.Long.Requests != maxLong+3 || got.Read.Requests != 41 {
		t.Errorf("%+v", got)
	}
}

// When there is no room for all flushes, none of a disk's queues waits forever.
func TestQueuesTakeTurnsWithLongOperations(t *testing.T) {
	f := newFake(t, 4096)
	f.script, f.keepLog = holdAll, false
	e := f.engine(0)
	queues := []*testQueue{newTestQueue(t), newTestQueue(t), newTestQueue(t)}
	cfg := PortConfig{Name: "a", Demand: 64}
	for _, q := range queues {
		q.refill = func() (testRequest, bool) { return ranged(Flush, 0, 0, 0), true }
		cfg.Queues = append(cfg.Queues, q)
	}
	attach(t, e, cfg)
	for range 300 {
		f.rest(e)
		f.letGo(1)
	}
	f.rest(e)
	for i, q := range queues {
		if n := len(q.take()); n < 95 || n > 105 {
			t.Errorf("queue %d: %d answers", i, n)
		}
	}
}

// The guest makes a head available again while it is in flight: the engine doesn't mind.
func TestDuplicateTags(t *testing.T) {
	f := newFake(t, 4096)
	f.script = holdAll
	e := f.engine(0)
	q := newTestQueue(t)
	b := make([]byte, 512)
	for range 5 {
		q.add(rw(Read, 7, 0, b))
	}
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64})
	f.rest(e)
	slices.Reverse(f.held)
	f.letGo(5)
	f.rest(e)
	got := q.take()
	if len(got) != 5 || slices.ContainsFunc(got, func(a answer) bool { return a != answer{7, 512, 0} }) {
		t.Errorf("%v", got)
	}
}

func TestSenselessRequestsFail(t *testing.T) {
	f := newFake(t, 4096)
	e := f.engine(0)
	q := newTestQueue(t)
	b := make([]byte, 512)
	wrongLength := rw(Read, 1, 0, b)
	wrongLength.Length = 513
	unknown := rw(WriteZeroes+1, 2, 0, b)
	q.add(wrongLength, unknown, rw(Read, 3, -512, b), ranged(Discard, 4, 1<<62, 1<<62), ranged(WriteZeroes, 5, 0, -1),
		rw(Read, 6, 0), ranged(Discard, 7, 0, 0)) // the last two ask for nothing
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64})
	f.rest(e)
	if len(f.log) != 0 {
		t.Errorf("submitted: %v", f.log)
	}
	want := []answer{{1, 0, unix.EINVAL}, {2, 0, unix.EINVAL}, {3, 0, unix.EINVAL}, {4, 0, unix.EINVAL},
		{5, 0, unix.EINVAL}, {6, 0, 0}, {7, 0, 0}}
	if got := q.take(); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if s := p.Stats(); s.InFlight != 0 || s.Read.Errors+s.Long.Errors != 5 {
		t.Errorf("%+v", s)
	}
}
