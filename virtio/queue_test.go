package virtio_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// Every chain that came back does so through the used ring, in every position of
// it and across the wrap of the indices, wherever the rings are aligned.
func TestUsedRing(t *testing.T) {
	for _, s := range []virtiotest.Setup{{}, {Features: eventIdx, Skew: true}} {
		r := newRig(t, 4)
		q, dq := r.startWith(s)
		b := r.buf(16, true)
		for i := range 65536 + 10 {
			head := q.Add(b)
			c, ok := dq.Next()
			if !ok || c.Head() != head {
				t.Fatalf("round %d: chain %d, %v", i, c.Head(), ok)
			}
			dq.AddUsed(head, uint32(i))
			if _, _, ok := q.Take(); ok {
				t.Fatalf("round %d: used before Publish", i)
			}
			dq.Publish()
			if h, n, ok := q.Take(); !ok || h != head || n != uint32(i) {
				t.Fatalf("round %d: used %d, %d, %v", i, h, n, ok)
			}
		}
	}
}

// Chains may come back in any order; a chain that was put back comes again.
func TestOutOfOrderAndPutBack(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(0)
	var heads []uint16
	for range 3 {
		heads = append(heads, q.Add(r.buf(16, true)))
	}
	for range 3 {
		if _, ok := dq.Next(); !ok {
			t.Fatal("no chain")
		}
	}
	dq.PutBack()
	if c, ok := dq.Next(); !ok || c.Head() != heads[2] {
		t.Error("a chain that was put back is gone")
	}
	for _, i := range []int{2, 0, 1} {
		dq.AddUsed(heads[i], uint32(i))
	}
	dq.Publish()
	for _, i := range []int{2, 0, 1} {
		if h, n, ok := q.Take(); !ok || h != heads[i] || n != uint32(i) {
			t.Errorf("used %d, %d, %v; want %d, %d", h, n, ok, heads[i], i)
		}
	}
}

// 2.7.7.2: without EVENT_IDX the driver is interrupted unless it set NO_INTERRUPT,
// and not for nothing.
func TestNoInterruptFlag(t *testing.T) {
	for _, skew := range []bool{false, true} {
		r := newRig(t)
		q, dq := r.startWith(virtiotest.Setup{Skew: skew})
		for _, c := range []struct {
			flags uint16
			n     int // chains
			want  int
		}{{0, 1, 1}, {1, 1, 0}, {0, 3, 1}, {0, 0, 0}, {1, 3, 0}, {0xfffe, 1, 1}} {
			q.SetAvailFlags(c.flags)
			r.use(q, dq, c.n)
			if got := q.Interrupt().Take(); got != c.want {
				t.Errorf("flags %#x, %d chains: %d interrupts, want %d", c.flags, c.n, got, c.want)
			}
		}
	}
}

// use sends n chains through the queue, published at once.
func (r *rig) use(q *virtiotest.Queue, dq *virtio.Queue, n int) {
	r.Helper()
	b := virtiotest.Buf{Addr: 0x1000, Len: 1, Write: true}
	for range n {
		q.Add(b)
		c, ok := dq.Next()
		if !ok {
			r.Fatal("no chain")
		}
		dq.AddUsed(c.Head(), 0)
	}
	dq.Publish()
	for range n {
		q.Take()
	}
}

// 2.7.7.2, 2.7.10.2: with EVENT_IDX an interrupt exactly when idx passes used_event,
// for any history of it; flags stay 0 and NO_INTERRUPT is ignored.
func TestEventIdxExact(t *testing.T) {
	for _, skew := range []bool{false, true} {
		r := newRig(t, 16)
		q, dq := r.startWith(virtiotest.Setup{Features: eventIdx, Skew: skew})
		idx := uint16(0)
		for idx < 65400 { // so that the wrap lies within what follows
			r.use(q, dq, 10)
			idx += 10
		}
		q.Interrupt().Take()
		rapid.Check(t, func(rt *rapid.T) {
			event := idx + uint16(rapid.IntRange(-20, 20).Draw(rt, "event"))
			n := rapid.IntRange(0, 16).Draw(rt, "n")
			q.SetUsedEvent(event)
			q.SetAvailFlags(uint16(rapid.IntRange(0, 1).Draw(rt, "flags")))
			r.use(q, dq, n)
			want := 0
			for i := range n { // in the spec's words: this used entry has index used_event
				if idx+uint16(i) == event {
					want = 1
				}
			}
			idx += uint16(n)
			if got := q.Interrupt().Take(); got != want {
				rt.Fatalf("idx %d, %d more, used_event %d: %d interrupts, want %d", idx-uint16(n), n, event, got, want)
			}
			if q.UsedFlags() != 0 {
				rt.Fatalf("used flags %#x with EVENT_IDX", q.UsedFlags())
			}
		})
		if idx > 60000 {
			t.Errorf("idx %d did not wrap", idx)
		}
	}
}

// 2.7.10: when the driver has to kick, without and with EVENT_IDX.
func TestKickSuppression(t *testing.T) {
	for _, s := range []virtiotest.Setup{{}, {Skew: true}, {Features: eventIdx}, {Features: eventIdx, Skew: true}} {
		r := newRig(t)
		q, dq := r.startWith(s)
		wants := func(when string, want bool) {
			t.Helper()
			q.Add(virtiotest.Buf{Addr: 0x1000, Len: 1, Write: true})
			if got := q.KickIfWanted(); got != want {
				t.Errorf("%+v: %s: kick wanted: %v", s, when, got)
			}
			if q.EventIdx && q.UsedFlags() != 0 {
				t.Errorf("%+v: %s: used flags %#x with EVENT_IDX", s, when, q.UsedFlags())
			}
		}
		empty := func() {
			for {
				c, ok := dq.Next()
				if !ok {
					return
				}
				dq.AddUsed(c.Head(), 0)
				dq.Publish()
				q.Take()
			}
		}
		wants("at start", true)
		dq.DisableKicks()
		empty()
		wants("the device looks by itself", false)
		if !dq.EnableKicks() {
			t.Errorf("%+v: EnableKicks doesn't see the chain that came meanwhile", s)
		}
		dq.DisableKicks()
		empty()
		if dq.EnableKicks() {
			t.Errorf("%+v: EnableKicks sees a chain where there is none", s)
		}
		wants("kicks enabled", true)
		empty()
		dq.EnableKicks()
		dq.DisableKicks()
		wants("kicks asked for and taken back", false)
		if !dq.Pending() {
			t.Errorf("%+v: Pending doesn't see the chain", s)
		}
		empty()
		if dq.Pending() {
			t.Errorf("%+v: Pending sees a chain where there is none", s)
		}
		// A kick without a reason is harmless.
		q.Kick()
		if _, ok := dq.Next(); ok {
			t.Errorf("%+v: spurious kick made a chain", s)
		}
	}
}

// The available event's word belongs to somebody else by half.
func TestAvailEventLeavesNeighbour(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(eventIdx)
	after := r.mem.RAM(q.UsedAddr+4+8*uint64(q.Size)+2, 2)
	copy(after, "eb")
	for range 3 {
		r.use(q, dq, 1)
		dq.EnableKicks()
	}
	if q.AvailEvent() != 3 || string(after) != "eb" {
		t.Errorf("avail_event %d, the bytes behind it %q", q.AvailEvent(), after)
	}
}

// 2.7.5.1: nothing the driver gave to be read is written, nor the descriptor table
// or the available ring.
func TestOnlyUsedRingWritten(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(indirect | eventIdx)
	in := r.buf(64, false)
	q.AddIndirect(in, r.buf(16, true))
	q.Add(in, r.buf(16, true))
	before := append([]byte(nil), r.mem.RAM(0, 16<<20)...)
	for range 2 {
		c, ok := dq.Next()
		if !ok {
			t.Fatal("no chain")
		}
		var p [64]byte
		c.Readable().Read(p[:], 0)
		dq.AddUsed(c.Head(), 0)
	}
	dq.Publish()
	dq.EnableKicks()
	after := r.mem.RAM(0, 16<<20)
	used := r.mem.RAM(q.UsedAddr, 6+8*uint64(q.Size))
	copy(before[q.UsedAddr:], used)
	if !bytes.Equal(before, after) {
		t.Error("something beside the used ring was written")
	}
}

func TestQueueAllocates(t *testing.T) {
	for _, features := range []uint64{0, eventIdx, indirect, indirect | eventIdx} {
		r := newRig(t)
		q, dq := r.start(features)
		b := []virtiotest.Buf{r.buf(16, false), r.buf(512, true), r.buf(1, true)}
		var head uint16
		if features&indirect != 0 {
			head = q.ChainIndirect(nil, b...)
		} else {
			head = q.Chain(b...)
		}
		var p [16]byte
		n := testing.AllocsPerRun(1000, func() {
			q.Push(head)
			c, ok := dq.Next()
			if !ok || !c.Readable().Read(p[:], 0) {
				t.Fatal("no chain")
			}
			dq.AddUsed(c.Head(), 1)
			dq.Publish()
			dq.DisableKicks()
			dq.EnableKicks()
		})
		if n != 0 {
			t.Errorf("features %#x: %v allocations per chain", features, n)
		}
	}
}

// Both sides at full speed, sleeping whenever they may: a driver that kicks only
// when it is asked to, a device that looks only when it is kicked, interrupts only
// as needed. One lost notification and everything stands still.
func TestNoLostNotification(t *testing.T) {
	for _, s := range []virtiotest.Setup{{}, {Features: eventIdx}, {Features: eventIdx | indirect, Skew: true}} {
		r := newRig(t)
		q, dq := r.startWith(s)
		const total = 50000
		done := make(chan struct{})
		go func() {
			defer close(done)
			for used := 0; used < total; {
				if !virtiotest.WaitReadable(dq.KickFD(), virtiotest.Deadline) {
					t.Error("device: kick lost")
					return
				}
				virtiotest.Drain(dq.KickFD())
				dq.DisableKicks()
				for more := true; more; more = dq.EnableKicks() {
					for c, ok := dq.Next(); ok; c, ok = dq.Next() {
						dq.AddUsed(c.Head(), 0)
						used++
						if used%3 == 0 {
							dq.Publish()
						}
					}
					dq.Publish()
				}
			}
		}()
		b := r.buf(16, true)
		added, taken := 0, 0
		for taken < total && !t.Failed() {
			for n := 1 + added%5; n > 0 && added < total && added-taken < q.Size; n-- {
				q.Add(b)
				added++
			}
			q.KickIfWanted()
			if added-taken == q.Size || added == total {
				q.Wait()
				taken++
			}
			for _, _, ok := q.Take(); ok; _, _, ok = q.Take() {
				taken++
			}
		}
		<-done
	}
}
