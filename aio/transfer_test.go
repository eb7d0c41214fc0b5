package aio

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// pattern fills n bytes so that every position differs from its neighbours.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// only runs one request on a port over f and returns its answer.
func only(t testing.TB, f *fakeBackend, align int, r testRequest) answer {
	t.Helper()
	e := f.engine(0)
	q := newTestQueue(t)
	q.add(r)
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 4, MemoryAlign: align})
	f.rest(e)
	got := q.take()
	if len(got) != 1 || p.Stats().InFlight != 0 || len(p.bounce.free) != len(p.bounce.memory)/bounceChunk {
		t.Fatalf("answers %v, %d in flight, %d chunks free", got, p.Stats().InFlight, len(p.bounce.free))
	}
	p.Detach(nil)
	f.rest(e)
	return got[0]
}

func TestShortTransfersGoOn(t *testing.T) {
	for _, op := range []Op{Read, Write} {
		t.Run(op.String(), func(t *testing.T) {
			f := newFake(t, 10000)
			f.script = func(*operation) (int32, verdict) { return 700, succeed }
			data := pattern(4000, 1)
			if op == Read {
				copy(f.disk[512:], data)
			}
			buf := make([]byte, 4000)
			if op == Write {
				copy(buf, data)
			}
			got := only(t, f, 0, rw(op, 9, 512, buf[:1000], buf[1000:1001], buf[1001:3500], buf[3500:]))
			if got != (answer{9, 4000, 0}) {
				t.Errorf("%v", got)
			}
			if !bytes.Equal(buf, data) || !bytes.Equal(f.disk[512:4512], data) {
				t.Error("wrong data")
			}
			if len(f.log) != 6 {
				t.Errorf("%d operations", len(f.log))
			}
		})
	}
}

// Whatever the shape of the buffers, and however short the kernel's transfers, EAGAIN and
// EINTR among them: the data is right, the answer is one.
func TestAnyTransfer(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFake(t, 1<<20)
		align := rapid.SampledFrom([]int{0, 16, 512}).Draw(rt, "align")
		write := rapid.Bool().Draw(rt, "write")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 100000), 1, 8).Draw(rt, "sizes")
		script := append(rapid.SliceOfN(rapid.IntRange(-2, 50000), 0, 8).Draw(rt, "results"),
			rapid.IntRange(2000, 50000).Draw(rt, "result")) // progress at least once a round
		turn := 0
		f.script = func(op *operation) (int32, verdict) {
			result := script[turn%len(script)]
			turn++
			if turn > 50_000 {
				rt.Fatal("no end")
			}
			switch {
			case result >= 0:
				return int32(result), succeed
			case result == -1:
				return -int32(unix.EAGAIN), answers
			default:
				return -int32(unix.EINTR), answers
			}
		}
		total := 0
		for _, n := range sizes {
			total += n
		}
		data := pattern(total, uint64(total))
		var buffers [][]byte
		op := Read
		for at, i := 0, 0; i < len(sizes); i++ {
			buffers = append(buffers, make([]byte, sizes[i]))
			if write {
				copy(buffers[i], data[at:])
			}
			at += sizes[i]
		}
		if write {
			op = Write
		} else {
			copy(f.disk[4096:], data)
		}
		got := only(t, f, align, rw(op, 1, 4096, buffers...))
		if got != (answer{1, int64(total), 0}) {
			rt.Fatalf("%v", got)
		}
		if !bytes.Equal(bytes.Join(buffers, nil), data) || !bytes.Equal(f.disk[4096:4096+total], data) {
			rt.Fatal("wrong data")
		}
	})
}

func TestErrorsEndTheRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		first  int32 // what the second operation answers, after one of 100 bytes
		want   unix.Errno
		offset int64
	}{
		{"error", -int32(unix.ENOSPC), unix.ENOSPC, 0},
		{"end of file", 0, unix.EIO, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, 4096)
			n := 0
			f.script = func(*operation) (int32, verdict) {
				if n++; n == 1 {
					return 100, succeed
				}
				return c.first, answers
			}
			for _, op := range []Op{Read, Write} {
				n = 0
				if got := only(t, f, 0, rw(op, 3, 0, make([]byte, 512))); got != (answer{3, 100, c.want}) {
					t.Errorf("%v: %v", op, got)
				}
			}
		})
	}
}

// The file was cut short under the disk: a read across its new end fails.
func TestReadAcrossEndOfFile(t *testing.T) {
	f := newFake(t, 1000)
	if got := only(t, f, 0, rw(Read, 3, 512, make([]byte, 1024))); got != (answer{3, 488, unix.EIO}) {
		t.Errorf("%v", got)
	}
}

func TestRetriesAreBoundedAndDontSpin(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EAGAIN, unix.ECANCELED} {
		f := newFake(t, 4096)
		f.script = func(*operation) (int32, verdict) { return -int32(errno), answers }
		if got := only(t, f, 0, rw(Read, 3, 0, make([]byte, 512))); got != (answer{3, 0, errno}) {
			t.Errorf("%v", got)
		}
		if len(f.log) != maxTries+1 || f.log[0].async || !f.log[1].async {
			t.Errorf("%v: %d tries, first %+v, second %+v", errno, len(f.log), f.log[0], f.log[1])
		}
	}
}

func TestManySegments(t *testing.T) {
	f := newFake(t, 1<<20)
	data := pattern(3000*4, 5)
	copy(f.disk, data)
	var buffers [][]byte
	for range 3000 {
		buffers = append(buffers, make([]byte, 4))
	}
	if got := only(t, f, 0, rw(Read, 1, 0, buffers...)); got != (answer{1, 12000, 0}) {
		t.Errorf("%v", got)
	}
	if !bytes.Equal(bytes.Join(buffers, nil), data) {
		t.Error("wrong data")
	}
	for _, op := range f.log {
		if len(op.iov) > maxIovecs {
			t.Errorf("%d buffers in one operation", len(op.iov))
		}
	}
}

// Continuations go on in a held port: what is in flight completes, wholly.
func TestContinuationsBypassAClosedWindow(t *testing.T) {
	f := newFake(t, 4096)
	f.script = holdAll
	e := f.engine(0)
	q := newTestQueue(t)
	q.add(rw(Read, 1, 0, make([]byte, 2048)), rw(Read, 2, 0, make([]byte, 512)))
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 4, Held: true})
	p.SetWindow(CausePause, 1)
	f.rest(e)
	p.SetWindow(CausePause, 0)
	f.script = nil
	f.answer(&f.held[0], 512)
	f.rest(e)
	if got := q.take(); len(got) != 1 || got[0] != (answer{1, 2048, 0}) || q.waiting() != 1 {
		t.Errorf("%v, %d waiting", got, q.waiting())
	}
}

// Continuations find no room beside each other: they wait their turn before new requests.
func TestContinuationsWaitForRoom(t *testing.T) {
	f := newFake(t, 1<<16)
	f.batch = 2
	f.script = func(*operation) (int32, verdict) { return 100, succeed }
	e := f.engine(0)
	q := newTestQueue(t)
	for i := range 50 {
		q.add(rw(Read, uint32(i), int64(i)*512, make([]byte, 512)))
	}
	attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 64})
	f.rest(e)
	if got := len(q.take()); got != 50 {
		t.Errorf("%d answers", got)
	}
}

func TestOperationsOfRequests(t *testing.T) {
	buf := make([]byte, 512)
	durable := func(r testRequest) testRequest { r.Durable = true; return r }
	unmap := func(r testRequest) testRequest { r.Unmap = true; return r }
	const punch, zero = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	for _, c := range []struct {
		name string
		r    testRequest
		want string
	}{
		{"read", rw(Read, 0, 512, buf), "read@512"},
		{"write", rw(Write, 0, 512, buf), "write@512"},
		{"durable write", durable(rw(Write, 0, 512, buf)), "write@512 dsync"},
		{"durable read", durable(rw(Read, 0, 512, buf)), "read@512"},
		{"flush", ranged(Flush, 0, 0, 0), "sync"},
		{"discard", ranged(Discard, 0, 512, 1024), fmt.Sprintf("allocate@512+1024 %#x", punch)},
		{"durable discard", durable(ranged(Discard, 0, 512, 1024)), fmt.Sprintf("allocate@512+1024 %#x, sync", punch)},
		{"zeroes", ranged(WriteZeroes, 0, 512, 1024), fmt.Sprintf("allocate@512+1024 %#x", zero)},
		{"zeroes, unmap", unmap(ranged(WriteZeroes, 0, 512, 1024)), fmt.Sprintf("allocate@512+1024 %#x", punch)},
		{"durable zeroes", durable(ranged(WriteZeroes, 0, 512, 1024)), fmt.Sprintf("allocate@512+1024 %#x, sync", zero)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, 4096)
			if got := only(t, f, 0, c.r); got.err != 0 {
				t.Errorf("%v", got)
			}
			if got := spell(f.log); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// spell writes operations out.
func spell(ops []operation) string {
	var b bytes.Buffer
	for i, op := range ops {
		if i > 0 {
			b.WriteString(", ")
		}
		switch op.code {
		case opSync:
			b.WriteString("sync")
		case opAllocate:
			fmt.Fprintf(&b, "allocate@%d+%d %#x", op.offset, op.length, op.mode)
		default:
			fmt.Fprintf(&b, "%s@%d", [...]string{"read", "write"}[op.code], op.offset)
		}
		if op.dsync {
			b.WriteString(" dsync")
		}
	}
	return b.String()
}
