package aio

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// clumsy makes a script of a file that can't do some modes of fallocate.
func clumsy(modes ...uint32) func(*operation) (int32, verdict) {
	return func(op *operation) (int32, verdict) {
		if op.code == opAllocate && slices.Contains(modes, op.mode&^unix.FALLOC_FL_KEEP_SIZE) {
			return -int32(unix.EOPNOTSUPP), answers
		}
		return 0, succeed
	}
}

func TestZeroesFallBack(t *testing.T) {
	const punch, zero = unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	const length = 5*maxFill/2 + 512
	for _, c := range []struct {
		name          string
		unmap         bool
		lacks         []uint32
		first, second string // operations of the first request, and of the next
	}{
		{"no zero range", false, []uint32{zero}, "allocate@512+2621952 0x11, allocate@512+2621952 0x3", "allocate@512+2621952 0x3"},
		{"no punch hole", true, []uint32{punch}, "allocate@512+2621952 0x3, allocate@512+2621952 0x11", "allocate@512+2621952 0x11"},
		{"neither", false, []uint32{zero, punch}, "allocate@512+2621952 0x11, allocate@512+2621952 0x3, write@512, write@1049088, write@2097664",
			"write@512, write@1049088, write@2097664"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, 4<<20)
			f.script = clumsy(c.lacks...)
			e := f.engine(0)
			q := newTestQueue(t)
			p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 4})
			for _, want := range []string{c.first, c.second} {
				copy(f.disk, pattern(len(f.disk), 3))
				f.log = nil
				r := ranged(WriteZeroes, 5, 512, length)
				r.Unmap = c.unmap
				q.add(r)
				f.signal(p.queues[0])
				f.rest(e)
				if got := q.take(); len(got) != 1 || got[0] != (answer{5, 0, 0}) {
					t.Fatalf("%v", got)
				}
				if got := spell(f.log); got != want {
					t.Errorf("operations %s\nwant %s", got, want)
				}
				if slices.ContainsFunc(f.disk[512:512+length], func(b byte) bool { return b != 0 }) {
					t.Error("the range doesn't read zeroes")
				}
				if f.disk[510]|f.disk[511] == 0 || f.disk[512+length]|f.disk[513+length] == 0 {
					t.Error("bytes beside the range were zeroed")
				}
			}
			if s := counts(p.Stats().Long); s != (ClassStats{Requests: 2, Bytes: 2 * length}) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestDiscardIsAHint(t *testing.T) {
	f := newFake(t, 4096)
	f.script = clumsy(unix.FALLOC_FL_PUNCH_HOLE)
	if got := only(t, f, 0, ranged(Discard, 1, 0, 4096)); got.err != 0 {
		t.Errorf("%v", got)
	}
	f.script = func(*operation) (int32, verdict) { return -int32(unix.EIO), answers }
	if got := only(t, f, 0, ranged(Discard, 1, 0, 4096)); got.err != unix.EIO {
		t.Errorf("%v", got)
	}
}

func TestDurableZeroesThatCantBeSynced(t *testing.T) {
	f := newFake(t, 4096)
	f.script = func(op *operation) (int32, verdict) {
		if op.code == opSync {
			return -int32(unix.EIO), answers
		}
		return 0, succeed
	}
	r := ranged(WriteZeroes, 1, 0, 4096)
	r.Durable = true
	if got := only(t, f, 0, r); got.err != unix.EIO {
		t.Errorf("%v", got)
	}
}

// A range longer than one fallocate covers is done piece by piece and completes once.
func TestLongRange(t *testing.T) {
	f := newFake(t, 0)
	f.script = func(*operation) (int32, verdict) { return 0, answers }
	if got := only(t, f, 0, ranged(Discard, 1, 4096, 2*maxRange+512)); got != (answer{1, 0, 0}) {
		t.Errorf("%v", got)
	}
	if got := spell(f.log); got != "allocate@4096+268435456 0x3, allocate@268439552+268435456 0x3, allocate@536875008+512 0x3" {
		t.Error(got)
	}
}

func TestFillThatStops(t *testing.T) {
	f := newFake(t, 4096)
	f.script = func(op *operation) (int32, verdict) {
		if op.code == opWrite {
			return 0, answers
		}
		return -int32(unix.EOPNOTSUPP), answers
	}
	if got := only(t, f, 0, ranged(WriteZeroes, 1, 0, 4096)); got.err != unix.EIO {
		t.Errorf("%v", got)
	}
}
