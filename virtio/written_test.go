package virtio_test

import (
	"slices"
	"testing"

	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// What a device writes through a Writer is marked, and only that.
func TestWriterMarksWhatItWrote(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(0)
	at := r.mem.Alloc(5*4096, 4096)
	q.Add(virtiotest.Buf{Addr: at + 4090, Len: 6, Write: true}, virtiotest.Buf{Addr: at + 4*4096, Len: 100, Write: true})
	c, ok := dq.Next()
	if !ok {
		t.Fatal("no chain")
	}
	r.mem.TakeWritten()
	for _, s := range []struct {
		off, n uint64
		want   []uint64
	}{{0, 6, []uint64{at}}, {6, 1, []uint64{at + 4*4096}}, {5, 3, []uint64{at, at + 4*4096}}, {0, 0, nil}} {
		if !c.Writable().Write(make([]byte, s.n), s.off) {
			t.Fatalf("%d bytes at %d can't be written", s.n, s.off)
		}
		if got := r.mem.TakeWritten(); !slices.Equal(got, s.want) {
			t.Errorf("%d bytes at %d: pages %#x are marked, want %#x", s.n, s.off, got, s.want)
		}
	}
}

// MarkRings marks all of the used ring of each queue the driver has enabled, as long as the
// driver is there; nothing else does.
func TestMarkRings(t *testing.T) {
	r := newRig(t, 1024, 4, 4)
	taken := func(what string, want ...uint64) {
		t.Helper()
		r.pci.MarkRings()
		if got := r.mem.TakeWritten(); !slices.Equal(got, want) {
			t.Errorf("%s: pages %#x are marked, want %#x", what, got, want)
		}
	}
	taken("before the driver")
	q, dq := r.startWith(virtiotest.Setup{Features: eventIdx, Queues: 2})
	r.use(q, dq, 3)
	dq.EnableKicks()
	if got := r.mem.TakeWritten(); got != nil {
		t.Errorf("without MarkRings %#x", got)
	}
	var want []uint64
	for _, q := range r.d.Queues {
		for p := q.UsedAddr &^ 4095; p < q.UsedAddr+4+8*uint64(q.Size)+2; p += 4096 {
			want = append(want, p)
		}
	}
	if len(want) < 3 {
		t.Fatalf("rings on pages %#x: the test wants one that is longer", want)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	taken("running", want...)
	taken("once more", want...)
	dq.Fail("test")
	taken("failed", want...)
	r.d.Reset()
	taken("reset", want...) // as it had no driver any more before this was asked
	taken("after that")
}
