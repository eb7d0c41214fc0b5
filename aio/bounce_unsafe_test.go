package aio

import (
	"bytes"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offAligned returns n bytes whose address is off by shift from a multiple of 4096.
func offAligned(n, shift int) []byte {
	b := make([]byte, n+8192)
	at := int(-uintptr(unsafe.Pointer(&b[0])) & 4095)
	return b[at+shift : at+shift+n : at+shift+n]
}

func TestAlignedBuffersAreNotBounced(t *testing.T) {
	f := newFake(t, 1<<20)
	data := pattern(8192, 2)
	copy(f.disk, data)
	a, b := offAligned(4096, 0), offAligned(4096, 512)
	if got := only(t, f, 512, rw(Read, 1, 0, a, b)); got != (answer{1, 8192, 0}) {
		t.Errorf("%v", got)
	}
	if !bytes.Equal(append(a, b...), data) || len(f.log) != 1 || len(f.log[0].iov) != 2 {
		t.Errorf("wrong data, or bounced: %d operations", len(f.log))
	}
}

func TestBounce(t *testing.T) {
	const n = 2*bounceChunk + 1536
	for _, op := range []Op{Read, Write} {
		for _, shape := range [][3]int{ // two buffers: split, shifts
			{n / 2, 1, 4}, {n - 7, 0, 0}, {7, 0, 256}, {bounceChunk, 511, 1},
		} {
			f := newFake(t, 1<<20)
			data := pattern(n, 2)
			a, b := offAligned(shape[0], shape[1]), offAligned(n-shape[0], shape[2])
			if op == Write {
				copy(a, data)
				copy(b, data[len(a):])
			} else {
				copy(f.disk[1024:], data)
			}
			f.script = func(o *operation) (int32, verdict) {
				if length, aligned := survey(o.iov, 512); length > bounceChunk || !aligned {
					t.Errorf("operation of %d bytes, aligned: %v", length, aligned)
				}
				return 0, succeed
			}
			if got := only(t, f, 512, rw(op, 1, 1024, a, b)); got != (answer{1, n, 0}) {
				t.Errorf("%v", got)
			}
			if !bytes.Equal(append(a, b...), data) || !bytes.Equal(f.disk[1024:1024+n], data) {
				t.Errorf("%v %v: wrong data", op, shape)
			}
			if len(f.log) != 3 {
				t.Errorf("%v %v: %d operations", op, shape, len(f.log))
			}
		}
	}
}

// With all chunks in use nothing is popped from this port, for the next request might need
// one; another port isn't concerned.
func TestNothingIsPoppedWithoutChunk(t *testing.T) {
	f := newFake(t, 1<<20)
	f.script = func(op *operation) (int32, verdict) {
		if op.fd == 1 {
			return 0, hold
		}
		return 0, succeed
	}
	e := f.engine(0)
	q, other := newTestQueue(t), newTestQueue(t)
	for i := range bounceChunks + 5 {
		q.add(rw(Read, uint32(i), 0, offAligned(512, 3)))
	}
	other.add(reads(20)...)
	p := attach(t, e, PortConfig{Name: "a", FD: 1, Queues: []Queue{q}, Demand: 64, MemoryAlign: 512})
	attach(t, e, PortConfig{Name: "b", FD: 2, Queues: []Queue{other}, Demand: 64})
	f.rest(e)
	if len(f.held) != bounceChunks || q.waiting() != 5 || len(other.take()) != 20 {
		t.Fatalf("%d in flight, %d in the queue", len(f.held), q.waiting())
	}
	f.letGo(1)
	f.rest(e)
	if len(f.held) != bounceChunks || q.waiting() != 4 {
		t.Fatalf("%d in flight, %d in the queue", len(f.held), q.waiting())
	}
	for len(f.held) > 0 {
		f.letGo(len(f.held))
		f.rest(e)
	}
	if got := len(q.take()); got != bounceChunks+5 || len(p.bounce.free) != bounceChunks {
		t.Errorf("%d answers, %d chunks free", got, len(p.bounce.free))
	}
}

func TestBounceError(t *testing.T) {
	f := newFake(t, 1<<20)
	f.script = func(*operation) (int32, verdict) { return -int32(unix.EIO), answers }
	b := offAligned(512, 1)
	if got := only(t, f, 512, rw(Read, 1, 0, b)); got != (answer{1, 0, unix.EIO}) {
		t.Errorf("%v", got)
	}
}

// alignedBytes returns n bytes at a multiple of align.
func alignedBytes(n, align int) []byte {
	b := make([]byte, n+align)
	at := int(-uintptr(unsafe.Pointer(&b[0])) & uintptr(align-1))
	return b[at : at+n : at+n]
}
