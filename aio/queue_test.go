package aio

import (
	"sync"

	"golang.org/x/sys/unix"
)

// testQueue is a guest's virtqueue as the engine sees it, with the guest's side beside it:
// any goroutine may add requests, and kicks only when asked to, as with EVENT_IDX.
type testQueue struct {
	t    tester
	kick int

	mu         sync.Mutex
	pending    []testRequest
	kicked     bool // the engine asked for a kick
	answers    []answer
	published  int
	publishes  int
	onAnswer   func(answer)   // on the engine's thread, with mu held
	onComplete func(*Request) // the same
	refill     func() (testRequest, bool)
	pops       int
}

type testRequest struct {
	Request
	answered bool // Pop says Done
}

type answer struct {
	tag uint32
	n   int64
	err unix.Errno
}

func newTestQueue(t tester) *testQueue {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return &testQueue{t: t, kick: fd}
}

// add is the guest making a request available and kicking if it must.
func (q *testQueue) add(requests ...testRequest) {
	q.mu.Lock()
	q.pending = append(q.pending, requests...)
	kick := q.kicked
	q.mu.Unlock()
	if kick {
		q.kickNow()
	}
}

func (q *testQueue) kickNow() {
	if _, err := unix.Write(q.kick, one); err != nil {
		q.t.Error(err)
	}
}

func (q *testQueue) KickFD() int { return q.kick }

func (q *testQueue) Pop(r *Request, long bool) Popped {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pops++
	if len(q.pending) == 0 && q.refill != nil {
		if r, ok := q.refill(); ok {
			q.pending = append(q.pending, r)
		}
	}
	if len(q.pending) == 0 {
		return Empty
	}
	next := q.pending[0]
	if next.Op.Long() && !long {
		return Stays
	}
	q.pending = q.pending[1:]
	if next.answered {
		q.answers = append(q.answers, answer{tag: next.Tag})
		return Done
	}
	segments := append(r.Segments[:0], next.Segments...)
	*r = next.Request
	r.Segments = segments
	return Issue
}

// next is what Pop would take, if there is anything.
func (q *testQueue) next() testRequest {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending[0]
}

func (q *testQueue) Complete(r *Request, n int64, err unix.Errno) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.onComplete != nil {
		q.onComplete(r)
	}
	a := answer{r.Tag, n, err}
	q.answers = append(q.answers, a)
	if q.onAnswer != nil {
		q.onAnswer(a)
	}
}

func (q *testQueue) Publish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.publishes++
	q.published = len(q.answers)
}

func (q *testQueue) Pending() bool { return q.waiting() > 0 }

func (q *testQueue) EnableKicks() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.kicked = true
	return len(q.pending) > 0
}

func (q *testQueue) DisableKicks() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.kicked = false
}

// take returns the published answers and forgets them.
func (q *testQueue) take() []answer {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.answers[:q.published:q.published]
	q.answers = q.answers[q.published:]
	q.published = 0
	return a
}

func (q *testQueue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pending)
}

// rw makes a read or write of the buffers at an offset.
func rw(op Op, tag uint32, offset int64, buffers ...[]byte) testRequest {
	r := Request{Op: op, Tag: tag, Offset: offset}
	for _, b := range buffers {
		if len(b) > 0 {
			r.Segments = append(r.Segments, iovec(b))
			r.Length += int64(len(b))
		}
	}
	return testRequest{Request: r}
}

// ranged makes a discard or write-zeroes.
func ranged(op Op, tag uint32, offset, length int64) testRequest {
	return testRequest{Request: Request{Op: op, Tag: tag, Offset: offset, Length: length}}
}
