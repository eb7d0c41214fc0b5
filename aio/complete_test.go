package aio

import (
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// However a transfer was cut up, when it completes its queue sees the request it made, with
// every segment whole: it has to know where data may have been written.
func TestCompleteSeesTheWholeRequest(t *testing.T) {
	a, b, c := make([]byte, 3000), make([]byte, 5000), make([]byte, 192)
	for _, op := range []Op{Read, Write} {
		for _, align := range []int{1, 512} { // directly, and through bounce memory
			for _, pieces := range [][]int32{{0}, {1, 0}, {2999, 1, 2, 4998, 0}, {3001, 100, 7, 0}, {8000, 191, 1}, {500, -5}, {3500, 1, -28}, {-5}} {
				f := newFake(t, 1<<20)
				e := f.engine(0)
				q := newTestQueue(t)
				want := rw(op, 7, 512, a, b, c)
				var got []Request
				q.onComplete = func(r *Request) {
					seen := *r
					seen.Segments = slices.Clone(r.Segments)
					got = append(got, seen)
				}
				left := pieces
				f.script = func(*operation) (int32, verdict) {
					n := left[0]
					left = left[1:]
					if n < 0 {
						return n, answers
					}
					return n, succeed
				}
				q.add(want)
				p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64, MemoryAlign: align})
				f.rest(e)
				if len(got) != 1 || !reflect.DeepEqual(got[0], want.Request) {
					t.Errorf("%v in pieces %v: %+v, want %+v", op, pieces, got, want.Request)
				}
				if len(left) > 0 || p.Stats().InFlight > 0 {
					t.Errorf("%v in pieces %v: %v are left", op, pieces, left)
				}
			}
		}
	}
}

// A request that was kept half way and is given up is whole again too.
func TestKeptRequestIsWholeAgain(t *testing.T) {
	f := newFake(t, 1<<20)
	e := f.engine(0)
	q := newTestQueue(t)
	want := rw(Read, 7, 512, make([]byte, 4096))
	q.onComplete = func(r *Request) {
		if !reflect.DeepEqual(*r, want.Request) {
			t.Errorf("%+v, want %+v", *r, want.Request)
		}
	}
	f.script = func(op *operation) (int32, verdict) {
		if op.length < 4096 {
			return -int32(unix.EIO), answers
		}
		return 100, succeed
	}
	q.add(want)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64, Keep: func(Failure) bool { return true }})
	f.rest(e)
	for range 3 {
		p.Retry()
		f.rest(e)
	}
	p.Detach(nil)
	f.rest(e)
	if got := q.take(); len(got) != 1 || got[0] != (answer{7, 100, unix.EIO}) {
		t.Errorf("%v", got)
	}
}
