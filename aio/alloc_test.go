package aio

import (
	"testing"

	"golang.org/x/sys/unix"
)

// ringQueue is a queue that itself allocates nothing: it plays requests from a list, over
// and over, a batch at a time.
type ringQueue struct {
	kick     int
	requests []Request
	next     int
	left     int // of the present batch
	bad      int
}

func (q *ringQueue) KickFD() int { return q.kick }

func (q *ringQueue) Pop(r *Request, long bool) Popped {
	if q.left == 0 {
		return Empty
	}
	from := &q.requests[q.next%len(q.requests)]
	if from.Op.Long() && !long {
		return Stays
	}
	q.left--
	q.next++
	segments := append(r.Segments[:0], from.Segments...)
	*r = *from
	r.Segments = segments
	return Issue
}

func (q *ringQueue) Complete(_ *Request, n int64, err unix.Errno) {
	if err != 0 {
		q.bad++
	}
}

func (q *ringQueue) Publish()          {}
func (q *ringQueue) Pending() bool     { return q.left > 0 }
func (q *ringQueue) EnableKicks() bool { return false }
func (q *ringQueue) DisableKicks()     {}

// mixture is a request of every kind: one segment and many, aligned and bounced, short, long.
func mixture() []Request {
	b := alignedBytes(64<<10, 4096)
	rs := []testRequest{
		rw(Read, 0, 0, b[:4096]), rw(Write, 0, 4096, b[:8192]), rw(Read, 0, 8192, b[:4096], b[8192:12288], b[4096:8192]),
		rw(Write, 0, 0, b[:512], b[1024:4096], b[8192:]), rw(Read, 0, 0, b[1:4097]), rw(Write, 0, 0, b[7:512], b[512:519]),
		ranged(Flush, 0, 0, 0), ranged(Discard, 0, 0, 4096), ranged(WriteZeroes, 0, 4096, 4096),
	}
	rs[1].Durable, rs[8].Durable, rs[7].Unmap = true, true, true
	var out []Request
	for _, r := range rs {
		out = append(out, r.Request)
	}
	return out
}

func TestNoAllocationsOverFake(t *testing.T) {
	t.Setenv("EBB_CHECK", "")
	f := newFake(t, 1<<20)
	f.keepLog = false
	short := 0
	f.script = func(op *operation) (int32, verdict) {
		switch short++; short % 7 {
		case 0:
			return 1024, succeed
		case 3:
			return -int32(unix.EAGAIN), answers
		}
		return 0, succeed
	}
	e := f.engine(0)
	q := &ringQueue{kick: eventfd(t), requests: mixture()}
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 256, MemoryAlign: 512})
	run := func() {
		q.left = 100
		f.signal(p.queues[0])
		f.rest(e)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations in 100 requests", n)
	}
	if q.bad > 0 || p.Stats().InFlight > 0 {
		t.Errorf("%d errors, %+v", q.bad, p.Stats())
	}
}

func TestNoAllocations(t *testing.T) {
	t.Setenv("EBB_CHECK", "")
	eachEngine(t, testNoAllocations)
}

func testNoAllocations(t *testing.T, cfg Config) {
	lockThread(t)
	e, err := prepareEngine(cfg)
	must(t, err)
	must(t, e.open(openers[cfg.Engine]))
	q := &ringQueue{kick: eventfd(t), requests: mixture()}
	p := newPort(e, PortConfig{Name: "a", FD: openFile(t, "/dev/shm", 0, 1<<20), Queues: []Queue{q},
		Demand: 256, MemoryAlign: 512}, bouncePool{})
	p.bounce, err = newBouncePool(512)
	must(t, err)
	if !e.attach(p) {
		t.Fatal("not attached")
	}
	done := func() uint64 {
		s := &p.stats.class
		return s[classRead].requests.Load() + s[classWrite].requests.Load() + s[classLong].requests.Load()
	}
	run := func() {
		q.left = 100
		signal(t, q.kick)
		for until := done() + 100; done() < until; {
			e.turn()
		}
	}
	testing.AllocsPerRun(50, run) // until every slot was used that ever is, and every worker is there
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations in 100 requests", n)
	}
	if q.bad > 0 {
		t.Errorf("%d errors", q.bad)
	}
	p.Detach(nil)
	for ; len(e.ports) > 0; e.settle() {
		e.turn()
	}
	e.closing = true
	e.run()
}
