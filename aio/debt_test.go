package aio

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A flush pays for the writes that completed before it began, and for no others.
func TestSyncDebt(t *testing.T) {
	f := newFake(t, 1<<20)
	e := f.engine(0)
	q := newTestQueue(t)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64})
	b := make([]byte, 4096)
	owes := func(what string, debt, flushes uint64) {
		t.Helper()
		if s := p.Stats(); s.SyncDebt != debt || s.Flushes != flushes {
			t.Errorf("%s: debt %d after %d flushes, want %d after %d", what, s.SyncDebt, s.Flushes, debt, flushes)
		}
	}
	do := func(r testRequest) {
		q.add(r)
		f.signal(p.queues[0])
		f.rest(e)
	}
	flush := ranged(Flush, 0, 0, 0)
	holdSyncs := func(op *operation) (int32, verdict) {
		if op.code == opSync {
			return 0, hold
		}
		return 0, succeed
	}

	do(rw(Read, 0, 0, b))
	do(ranged(Discard, 0, 0, 4096))
	owes("nothing written", 0, 0)
	do(rw(Write, 0, 0, b))
	do(rw(Write, 0, 4096, b[:512]))
	owes("written", 4608, 0)
	durable := rw(Write, 0, 0, b)
	durable.Durable = true
	do(durable)
	owes("durable", 4608, 0)
	f.script = func(*operation) (int32, verdict) { return -int32(unix.EIO), answers }
	do(flush)
	owes("failed flush", 4608, 1)
	f.script = nil
	do(flush)
	owes("flushed", 0, 2)

	do(rw(Write, 0, 0, b))
	f.script = holdSyncs
	do(flush)
	if n := p.Stats().LongInFlight; n != 1 {
		t.Errorf("%d long operations in flight", n)
	}
	do(rw(Write, 0, 0, b[:1024])) // completes while the flush is under way
	owes("under way", 5120, 2)
	do(flush)
	f.letGo(1)
	f.rest(e)
	owes("the first", 1024, 3)
	f.letGo(1)
	f.rest(e)
	owes("the second", 0, 4)
	if n := p.Stats().LongInFlight; n != 0 {
		t.Errorf("%d long operations in flight", n)
	}
	f.script = nil

	do(rw(Write, 0, 0, b))
	p.Synced(4096) // late
	owes("an old mark", 4096, 4)
	p.Synced(p.Written())
	owes("synced elsewhere", 0, 4)

	f.script = func(op *operation) (int32, verdict) { // zeroes are written
		if op.code == opAllocate {
			return -int32(unix.EOPNOTSUPP), answers
		}
		return 0, succeed
	}
	do(ranged(WriteZeroes, 0, 0, 8192))
	owes("zeroes", 8192, 4)
	f.script = func(*operation) (int32, verdict) { return 512, succeed }
	do(flush)
	f.script = func(op *operation) (int32, verdict) {
		if op.length < 4096 {
			return -int32(unix.EIO), answers
		}
		return 512, succeed
	}
	do(rw(Write, 0, 0, b))
	owes("failed half way", 512, 5)
}
