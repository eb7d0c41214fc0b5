package virtio_test

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

type buf = virtiotest.Buf

// What a driver must not do to a queue (2.7.5, 2.7.6): the device needs a reset, the
// queue stands still, nothing was used, and a reset brings it back.
func TestHostileQueue(t *testing.T) {
	const ram = 16 << 20
	for _, c := range []struct {
		name     string
		features uint64
		do       func(r *rig, q *virtiotest.Queue)
	}{
		{"chain loops to itself", 0, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, 0x1000, 16, virtiotest.Next, 0)
			q.Push(0)
		}},
		{"chain loops over two", 0, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, 0x1000, 16, virtiotest.Next, 1)
			q.SetDesc(1, 0x1000, 16, virtiotest.Next, 0)
			q.Push(0)
		}},
		{"zero-length chain loops", 0, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, 0x1000, 0, virtiotest.Next, 1)
			q.SetDesc(1, 0x1000, 0, virtiotest.Next, 0)
			q.Push(0)
		}},
		{"next beyond the table", 0, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, 0x1000, 16, virtiotest.Next, uint16(q.Size))
			q.Push(0)
		}},
		{"next far beyond the table", 0, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, 0x1000, 16, virtiotest.Next, 0xffff)
			q.Push(0)
		}},
		{"head beyond the table", 0, func(r *rig, q *virtiotest.Queue) { q.Push(uint16(q.Size)) }},
		{"head far beyond the table", 0, func(r *rig, q *virtiotest.Queue) { q.Push(0xffff) }},
		{"more than 2^32 bytes", 0, func(r *rig, q *virtiotest.Queue) {
			q.Push(q.Chain(buf{Addr: 0, Len: 0xffffffff}, buf{Addr: 0, Len: 0xffffffff}))
		}},
		{"readable after writable", 0, func(r *rig, q *virtiotest.Queue) {
			q.Push(q.Chain(r.buf(16, true), r.buf(16, false)))
		}},
		{"available idx further ahead than the queue size", 0, func(r *rig, q *virtiotest.Queue) {
			q.SetAvailIdx(uint16(q.Size) + 1)
		}},
		{"available idx goes back", 0, func(r *rig, q *virtiotest.Queue) { q.SetAvailIdx(0xffff) }},
		{"indirect, not negotiated", 0, func(r *rig, q *virtiotest.Queue) { q.AddIndirect(r.buf(16, true)) }},
		{"indirect inside an indirect table", indirect, func(r *rig, q *virtiotest.Queue) {
			inner := q.Table(r.buf(16, true))
			outer := r.mem.Alloc(16, 16)
			virtiotest.PutDesc(r.mem.RAM(outer, 16), inner.Addr, inner.Len, virtiotest.Indirect, 0)
			q.SetDesc(0, outer, 16, virtiotest.Indirect, 0)
			q.Push(0)
		}},
		{"indirect with NEXT", indirect, func(r *rig, q *virtiotest.Queue) {
			b := q.Table(r.buf(16, true))
			q.SetDesc(0, b.Addr, b.Len, virtiotest.Indirect|virtiotest.Next, 1)
			q.SetDesc(1, 0x1000, 16, virtiotest.Write, 0)
			q.Push(0)
		}},
		{"indirect table of 0 bytes", indirect, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, 0x1000, 0, virtiotest.Indirect, 0)
			q.Push(0)
		}},
		{"indirect table of 24 bytes", indirect, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, 0x1000, 24, virtiotest.Indirect, 0)
			q.Push(0)
		}},
		{"indirect table outside RAM", indirect, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, ram, 16, virtiotest.Indirect, 0)
			q.Push(0)
		}},
		{"indirect table overflows", indirect, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, ^uint64(0)-15, 32, virtiotest.Indirect, 0)
			q.Push(0)
		}},
		{"indirect table crosses the end of RAM", indirect, func(r *rig, q *virtiotest.Queue) {
			q.SetDesc(0, ram-16, 32, virtiotest.Indirect, 0)
			q.Push(0)
		}},
		{"indirect table loops", indirect, func(r *rig, q *virtiotest.Queue) {
			at := r.mem.Alloc(32, 16)
			virtiotest.PutDesc(r.mem.RAM(at, 16), 0x1000, 1, virtiotest.Next, 1)
			virtiotest.PutDesc(r.mem.RAM(at+16, 16), 0x1000, 1, virtiotest.Next, 0)
			q.SetDesc(0, at, 32, virtiotest.Indirect, 0)
			q.Push(0)
		}},
		{"indirect table's next beyond it", indirect, func(r *rig, q *virtiotest.Queue) {
			at := r.mem.Alloc(32, 16)
			virtiotest.PutDesc(r.mem.RAM(at, 16), 0x1000, 1, virtiotest.Next, 2)
			q.SetDesc(0, at, 32, virtiotest.Indirect, 0)
			q.Push(0)
		}},
		{"chain in a table longer than the queue", indirect, func(r *rig, q *virtiotest.Queue) {
			q.AddIndirect(make17(r)...)
		}},
		{"chain longer than the queue, half of it in a table", indirect, func(r *rig, q *virtiotest.Queue) {
			b := make17(r)
			q.Push(q.ChainIndirect(b[:8], b[8:]...))
		}},
		{"huge indirect table", indirect, func(r *rig, q *virtiotest.Queue) {
			for i := range uint64(1000) {
				virtiotest.PutDesc(r.mem.RAM(0x100000+16*i, 16), 0x1000, 0, virtiotest.Next, uint16(i+1))
			}
			q.SetDesc(0, 0x100000, 16*1000, virtiotest.Indirect, 0)
			q.Push(0)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			q, dq := r.start(c.features)
			c.do(r, q)
			if ch, ok := dq.Next(); ok {
				t.Fatalf("taken as chain %d", ch.Head())
			}
			if !dq.Failed() {
				t.Error("queue has not failed")
			}
			r.needsReset()
			if dq.EnableKicks() {
				t.Error("a failed queue says there is more")
			}
			if _, ok := dq.Next(); ok || q.UsedIdx() != 0 {
				t.Error("a failed queue goes on")
			}
			r.d.Reset()
			q, dq = r.start(c.features)
			r.use(q, dq, 3)
			if q.UsedIdx() != 3 {
				t.Error("queue doesn't work after the reset")
			}
		})
	}
}

func make17(r *rig) []buf {
	b := make([]buf, 17)
	for i := range b {
		b[i] = r.buf(1, true)
	}
	return b
}

// CVE-2026-45782: a head that is in flight is made available again. The first
// request still finishes once.
func TestDuplicateHead(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(0)
	head := q.Add(r.buf(16, true))
	if _, ok := dq.Next(); !ok {
		t.Fatal("no chain")
	}
	q.Push(head)
	if _, ok := dq.Next(); ok {
		t.Fatal("taken twice")
	}
	r.needsReset()
	dq.AddUsed(head, 1)
	dq.Publish()
	if q.UsedIdx() != 1 {
		t.Error("the first request can't be given back")
	}
	defer func() {
		if recover() == nil {
			t.Error("given back twice without a panic")
		}
	}()
	dq.AddUsed(head, 1)
}

// The longest legal chains: as many buffers as the queue has descriptors.
func TestLongestChains(t *testing.T) {
	for _, direct := range []int{-1, 0, 1, 15} { // -1: no indirect table
		r := newRig(t)
		q, dq := r.start(indirect)
		b := make17(r)[:16]
		if direct < 0 {
			q.Add(b...)
		} else {
			q.Push(q.ChainIndirect(b[:direct], b[direct:]...))
		}
		c, ok := dq.Next()
		if !ok || c.Writable().Len() != 16 {
			t.Errorf("%d direct: %v, %d bytes", direct, ok, c.Writable().Len())
		}
	}
}

// 2.7.5.3.2: the WRITE flag of an indirect descriptor means nothing.
func TestIndirectWriteFlagIgnored(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(indirect)
	b := q.Table(r.buf(16, false), r.buf(8, true))
	q.SetDesc(0, b.Addr, b.Len, virtiotest.Indirect|virtiotest.Write, 0)
	q.Push(0)
	if c, ok := dq.Next(); !ok || c.Readable().Len() != 16 || c.Writable().Len() != 8 {
		t.Errorf("%v: %d readable, %d writable", ok, c.Readable().Len(), c.Writable().Len())
	}
}

// A buffer outside RAM or of length 0 doesn't spoil the rest of the chain.
func TestBadBuffers(t *testing.T) {
	for _, addr := range []uint64{16 << 20, 16<<20 - 4, 1 << 31, 4<<30 - 4, ^uint64(0) - 3, 1 << 63, ^uint64(0)} {
		t.Run(fmt.Sprintf("%#x", addr), func(t *testing.T) {
			r := newRig(t)
			q, dq := r.start(0)
			head, status := r.buf(16, false), r.buf(1, true)
			q.Add(head, buf{Addr: addr, Len: 0}, buf{Addr: addr, Len: 8}, buf{Addr: addr, Len: 8, Write: true}, buf{Addr: addr, Len: 0, Write: true}, status)
			c, ok := dq.Next()
			if !ok || c.Readable().Len() != 24 || c.Writable().Len() != 9 {
				t.Fatalf("%v: %d readable, %d writable", ok, c.Readable().Len(), c.Writable().Len())
			}
			var p [17]byte
			if !c.Readable().Read(p[:16], 0) {
				t.Error("good bytes are not readable")
			}
			if c.Readable().Read(p[:], 0) || c.Writable().Write(p[:1], 7) || c.Writable().Byte(0) != nil {
				t.Error("bytes outside RAM were read or written")
			}
			if s, ok := c.Readable().Segments(nil, 0, 24); ok || len(s) != 0 {
				t.Error("iovec outside RAM")
			}
			if s, ok := c.Writable().Segments(nil, 0, 8); ok || len(s) != 0 {
				t.Error("iovec outside RAM")
			}
			b := c.Writable().Byte(8)
			if len(b) != 1 || &b[0] != &r.mem.RAM(status.Addr, 1)[0] {
				t.Error("status byte is not where it should be")
			}
		})
	}
}

// Accesses beyond what the driver gave.
func TestChainBounds(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(0)
	q.Add(r.buf(16, false), r.buf(16, true))
	c, _ := dq.Next()
	var p [17]byte
	in, out := c.Readable(), c.Writable()
	for _, off := range []uint64{16, 17, 1 << 32, ^uint64(0)} {
		if in.Read(p[:1], off) || out.Write(p[:1], off) || out.Byte(off) != nil {
			t.Errorf("access at %#x", off)
		}
		if _, ok := in.Segments(nil, off, 1); ok {
			t.Errorf("segments at %#x", off)
		}
	}
	if in.Read(p[:], 0) || out.Write(p[:], 0) {
		t.Error("17 of 16 bytes")
	}
	if _, ok := in.Segments(nil, 1, ^uint64(0)); ok {
		t.Error("overflowing length")
	}
	if s, ok := in.Segments(nil, 16, 0); !ok || len(s) != 0 {
		t.Error("nothing at the end is allowed")
	}
}

// 2.7.4.1: however the driver cuts a request into buffers, direct or not, its bytes are
// the same, read, written and as iovecs.
func TestAnyFraming(t *testing.T) {
	r := newRig(t, 64)
	rapid.Check(t, func(rt *rapid.T) {
		defer r.mem.Reset()
		defer r.d.Reset()
		q, dq := r.start(indirect)
		in := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(rt, "in")
		out := make([]byte, rapid.IntRange(1, 200).Draw(rt, "out"))
		bufs, _ := cut(rt, r, in, false)
		wbufs, waddr := cut(rt, r, out, true)
		bufs = append(bufs, wbufs...)
		if rapid.Bool().Draw(rt, "indirect") {
			direct := rapid.IntRange(0, len(bufs)-1).Draw(rt, "direct")
			q.Push(q.ChainIndirect(bufs[:direct], bufs[direct:]...))
		} else {
			q.Add(bufs...)
		}
		c, ok := dq.Next()
		if !ok {
			rt.Fatal("no chain")
		}
		if c.Readable().Len() != uint64(len(in)) || c.Writable().Len() != uint64(len(out)) {
			rt.Fatalf("%d and %d bytes, want %d and %d", c.Readable().Len(), c.Writable().Len(), len(in), len(out))
		}
		off := rapid.IntRange(0, len(in)).Draw(rt, "off")
		n := rapid.IntRange(0, len(in)-off).Draw(rt, "n")
		p := make([]byte, n)
		if !c.Readable().Read(p, uint64(off)) || !bytes.Equal(p, in[off:off+n]) {
			rt.Fatalf("read %x, want %x", p, in[off:off+n])
		}
		s, ok := c.Readable().Segments(nil, uint64(off), uint64(n))
		if !ok || !bytes.Equal(join(s), in[off:off+n]) {
			rt.Fatalf("segments hold %x, want %x", join(s), in[off:off+n])
		}
		woff := rapid.IntRange(0, len(out)-1).Draw(rt, "woff")
		w := rapid.SliceOfN(rapid.Byte(), 0, len(out)-woff).Draw(rt, "w")
		if !c.Writable().Write(w, uint64(woff)) {
			rt.Fatal("write refused")
		}
		copy(out[woff:], w)
		c.Writable().Byte(uint64(len(out) - 1))[0] = 0xee
		out[len(out)-1] = 0xee
		for i, a := range waddr {
			if got := r.mem.RAM(a, 1)[0]; got != out[i] {
				rt.Fatalf("written byte %d is %#x, want %#x", i, got, out[i])
			}
		}
	})
}

// cut puts bytes into buffers of random sizes, and empty ones between them. It
// returns the guest address of each byte too.
func cut(rt *rapid.T, r *rig, p []byte, write bool) (bufs []buf, addrs []uint64) {
	for len(p) > 0 || len(bufs) == 0 {
		n := rapid.IntRange(0, len(p)).Draw(rt, "piece")
		if len(bufs) == 12 {
			n = len(p)
		}
		at := r.mem.Put(p[:n])
		for i := range n {
			addrs = append(addrs, at+uint64(i))
		}
		bufs = append(bufs, buf{Addr: at, Len: uint32(n), Write: write})
		p = p[n:]
	}
	return bufs, addrs
}
