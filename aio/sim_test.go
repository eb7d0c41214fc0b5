package aio

import (
	"cmp"
	"slices"
	"testing"
)

// simulation runs the engine against disks that take their time, on a clock of its own:
// seconds pass in milliseconds, and always in the same way.
type simulation struct {
	*fakeBackend
	e       *Engine
	clock   int64
	latency func(op *operation) int64 // nanoseconds until it completes; never: it hangs
	due     []dueOperation            // by time
	alarm   int64                     // of the engine's timer; 0: not set
	stuck   []operation               // those that hang
}

const never = int64(-1)

type dueOperation struct {
	at int64
	op operation
}

const (
	microsecond = int64(1000)
	millisecond = 1000 * microsecond
)

func simulate(t testing.TB, credits int, latency func(op *operation) int64) *simulation {
	s := &simulation{fakeBackend: newFake(t, 4096), clock: 1000 * millisecond, latency: latency}
	s.keepLog = false
	s.script = func(op *operation) (int32, verdict) {
		if in := s.latency(op); in != never {
			d := dueOperation{s.clock + in, *op}
			i, _ := slices.BinarySearchFunc(s.due, d, func(a, b dueOperation) int {
				if a.at == b.at {
					return -1 // behind those of the same time
				}
				return cmp.Compare(a.at, b.at)
			})
			s.due = slices.Insert(s.due, i, d)
		} else {
			s.stuck = append(s.stuck, *op)
		}
		return 0, hold
	}
	s.e = s.engine(credits)
	s.e.check = true
	s.e.timer.now = func() int64 { return s.clock }
	s.e.timer.arm = func(in int64) { s.alarm = s.clock + in }
	s.e.now = s.clock
	return s
}

// run lets the simulation's time pass until end.
func (s *simulation) run(end int64) {
	for {
		s.rest(s.e)
		s.held = s.held[:0]
		next := end
		if len(s.due) > 0 {
			next = min(next, s.due[0].at)
		}
		if s.alarm != 0 {
			next = min(next, s.alarm)
		}
		if s.clock = next; next == end {
			return
		}
		if s.alarm == next {
			s.alarm = 0
			s.events = append(s.events, event{kind: eventSignal, id: timerWatch})
		}
		n := 0
		for n < len(s.due) && s.due[n].at <= s.clock {
			s.answer(&s.due[n].op, s.execute(&s.due[n].op, 0))
			n++
		}
		s.due = slices.Delete(s.due, 0, n)
	}
}

// closedQueue is a guest that keeps depth requests outstanding: the next is there, with a
// kick, as soon as one is answered.
type closedQueue struct {
	*testQueue
	sim             *simulation
	port            *portQueue
	depth, open     int
	request         func() testRequest
	completed, long int // answered: all, and those that aren't reads or writes
	ops             map[uint32]Op
	tag             uint32
}

// disk attaches a disk with such a guest. cfg's FD tells disks apart in the latency function.
func (s *simulation) disk(t testing.TB, cfg PortConfig, depth int, request func() testRequest) (*Port, *closedQueue) {
	q := &closedQueue{testQueue: newTestQueue(t), sim: s, depth: depth, request: request, ops: map[uint32]Op{}}
	cfg.Queues = []Queue{q}
	p := attach(t, s.e, cfg)
	q.port = p.queues[0]
	return p, q
}

func (q *closedQueue) Pop(r *Request, long bool) Popped {
	if q.waiting() > 0 { // it stayed the last time
		return q.testQueue.Pop(r, long)
	}
	if q.open >= q.depth {
		return Empty
	}
	next := q.request()
	q.tag++
	next.Tag = q.tag
	q.ops[q.tag] = next.Op
	q.testQueue.add(next)
	q.open++
	return q.testQueue.Pop(r, long)
}

func (q *closedQueue) Publish() {
	q.testQueue.Publish()
	for _, a := range q.take() {
		if q.ops[a.tag] > Write {
			q.long++
		}
		delete(q.ops, a.tag)
		q.open--
		q.completed++
	}
	if q.kicked && q.open < q.depth {
		q.sim.signal(q.port)
	}
}

func (q *closedQueue) EnableKicks() bool {
	q.testQueue.EnableKicks()
	return q.open < q.depth
}

// smallReads makes reads of 512 bytes.
func smallReads() func() testRequest {
	b := make([]byte, 512)
	return func() testRequest { return rw(Read, 0, 0, b) }
}

// withFlushes makes every nth request a flush, the others reads.
func withFlushes(n int) func() testRequest {
	i, read := 0, smallReads()
	return func() testRequest {
		if i++; i%n == 0 {
			return testRequest{Request: Request{Op: Flush}}
		}
		return read()
	}
}
