package aio

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A request that fails is kept, holds up nobody, and goes on where it failed when it is retried.
func TestKeptRequestIsRetried(t *testing.T) {
	f := newFake(t, 8192)
	full := true
	short := true
	f.script = func(op *operation) (int32, verdict) {
		switch {
		case op.code == opWrite && short:
			short = false
			return 512, succeed
		case op.code == opWrite && full:
			return -int32(unix.ENOSPC), answers
		}
		return 0, succeed
	}
	e := f.engine(0)
	e.check = true
	var failures []Failure
	q := newTestQueue(t)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 16, Keep: func(f Failure) bool {
		failures = append(failures, f)
		return f.Err == unix.ENOSPC
	}})
	data := pattern(2048, 3)
	b := make([]byte, 512)
	q.add(rw(Write, 1, 4096, data), rw(Read, 2, 0, b))
	f.signal(p.queues[0])
	f.rest(e)
	if got := q.take(); len(got) != 1 || got[0].tag != 2 {
		t.Fatalf("answers: %v", got)
	}
	if s := p.Stats(); s.Kept != 1 || s.InFlight != 1 || s.WrittenOff != 1 || len(failures) != 1 || failures[0] != (Failure{Write, 4096, 2048, unix.ENOSPC}) {
		t.Fatalf("%+v, failures %+v", s, failures)
	}
	idle := make(chan struct{})
	p.waiters[idle] = struct{}{}
	p.settle()
	f.rest(e)
	<-idle // what is kept is not waited for

	p.Retry() // still full
	f.rest(e)
	if p.Stats().Kept != 1 || len(failures) != 2 {
		t.Fatalf("%+v, failures %+v", p.Stats(), failures)
	}
	full = false
	p.Retry()
	f.rest(e)
	if got := q.take(); len(got) != 1 || got[0] != (answer{tag: 1, n: 2048}) {
		t.Fatalf("answers: %v", got)
	}
	if string(f.disk[4096:6144]) != string(data) {
		t.Error("the data is not what was written")
	}
	if s := p.Stats(); s.Kept+s.InFlight+s.WrittenOff != 0 || s.Write.Errors != 0 {
		t.Errorf("%+v", s)
	}
}

// Who detaches a disk doesn't wait for somebody to retry: what is kept fails then.
func TestKeptRequestFailsAtDetach(t *testing.T) {
	f := newFake(t, 4096)
	f.script = func(*operation) (int32, verdict) { return -int32(unix.EIO), answers }
	e := f.engine(0)
	q := newTestQueue(t)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 16, Keep: func(Failure) bool { return true }})
	q.add(reads(5)...)
	f.signal(p.queues[0])
	f.rest(e)
	if p.Stats().Kept != 5 {
		t.Fatalf("%+v", p.Stats())
	}
	gone := false
	p.Detach(func() { gone = true })
	f.rest(e)
	if got := q.take(); len(got) != 5 || got[0].err != unix.EIO || !gone {
		t.Errorf("answers %v, gone %v", got, gone)
	}
}

// Who attaches a disk hears of every fdatasync that failed, whatever request it was part of, and whatever becomes of that; and of
// writes that were to be stable and are not, but for want of room.
func TestFailedSyncsAreTold(t *testing.T) {
	f := newFake(t, 1<<20)
	failing := unix.Errno(0)
	f.script = func(op *operation) (int32, verdict) {
		if op.code == opSync && failing != 0 {
			return -int32(failing), answers
		}
		if op.code == opWrite && op.dsync {
			return -int32(failing), answers
		}
		return 0, succeed
	}
	e := f.engine(0)
	var told []unix.Errno
	q := newTestQueue(t)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 16, Keep: func(Failure) bool { return true },
		SyncFailed: func(err unix.Errno) { told = append(told, err) }})
	durable := rw(Write, 1, 0, make([]byte, 512))
	durable.Durable = true
	zeroes := ranged(WriteZeroes, 2, 0, 4096)
	zeroes.Durable = true
	for _, c := range []struct {
		failing unix.Errno
		request testRequest
		want    int
	}{{0, ranged(Flush, 0, 0, 0), 0}, {unix.ENOSPC, durable, 0}, {unix.EIO, zeroes, 1}, {unix.EIO, ranged(Flush, 3, 0, 0), 2}, {unix.EINTR, ranged(Flush, 4, 0, 0), 2},
		{unix.EIO, durable, 3}, {unix.ECANCELED, durable, 3}, {unix.ECANCELED, ranged(Flush, 5, 0, 0), 3}} {
		failing = c.failing
		q.add(c.request)
		f.signal(p.queues[0])
		f.rest(e)
		if len(told) != c.want {
			t.Errorf("after %v with %v: %v", c.request.Op, c.failing, told)
		}
	}
}
