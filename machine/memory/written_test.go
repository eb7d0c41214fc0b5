package memory

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// pages lists the pages of a region that were written.
func pages(r *RAM, region int) (list []int) {
	into := make([]uint64, r.Regions()[region].Words())
	r.CollectWritten(region, into)
	for i, w := range into {
		for ; w != 0; w &= w - 1 {
			list = append(list, 64*i+bits.TrailingZeros64(w))
		}
	}
	return list
}

func newRAM(t *testing.T, size uint64) *RAM {
	t.Helper()
	r, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestWritten(t *testing.T) {
	r := newRAM(t, HoleStart+2*Alignment)
	wrote := func(gpa, n uint64) { r.Wrote(&r.Bytes(gpa, 1)[0], n) }
	wrote(0, 1) // nobody wants to know
	if got := pages(r, 0); got != nil {
		t.Errorf("without tracking %v", got)
	}
	r.StartTracking()
	if got := pages(r, 0); got != nil {
		t.Errorf("at first %v", got)
	}
	const last = int(HoleStart/PageSize) - 1
	for _, c := range []struct {
		gpa, n    uint64
		low, high []int
	}{
		{0, 1, []int{0}, nil},
		{4095, 1, []int{0}, nil},
		{4095, 2, []int{0, 1}, nil},
		{4096, 4096, []int{1}, nil},
		{62*4096 + 1, 4 * 4096, []int{62, 63, 64, 65, 66}, nil},
		{5, 0, nil, nil},
		{HoleStart - 1, 1, []int{last}, nil},
		{HoleStart - 1, 1 << 40, []int{last}, nil}, // only as far as there is RAM
		{HoleEnd, 1, nil, []int{0}},
		{HoleEnd + 2*Alignment - 1, 1, nil, []int{1023}},
		{HoleEnd + 4097, ^uint64(0), nil, pagesFrom(1, 1024)},
	} {
		wrote(c.gpa, c.n)
		wrote(c.gpa, c.n)
		if low, high := pages(r, 0), pages(r, 1); !slices.Equal(low, c.low) || !slices.Equal(high, c.high) {
			t.Errorf("%d bytes at %#x: pages %v and %v, want %v and %v", c.n, c.gpa, low, high, c.low, c.high)
		}
		if again := pages(r, 0); again != nil {
			t.Errorf("collected twice: %v", again)
		}
	}
	r.Wrote(new(byte), 1) // not RAM
	if low, high := pages(r, 0), pages(r, 1); low != nil || high != nil {
		t.Errorf("outside: %v, %v", low, high)
	}

	// What another source has found stays.
	into := make([]uint64, r.Regions()[0].Words())
	into[0] = 1 << 5
	wrote(0, 1)
	if r.CollectWritten(0, into); into[0] != 1<<5|1 {
		t.Errorf("word %#x", into[0])
	}

	wrote(0, 1)
	r.StartTracking()
	if got := pages(r, 0); got != nil {
		t.Errorf("from before: %v", got)
	}
	wrote(0, 1)
	r.StopTracking()
	if got := pages(r, 0); got != nil {
		t.Errorf("after the end: %v", got)
	}
}

func pagesFrom(first, end int) (list []int) {
	for p := first; p < end; p++ {
		list = append(list, p)
	}
	return list
}

// Pages are written and marked while others collect and copy them: when it is over, and
// collected once more, the copy is the memory. In a round each page is written once, so that a
// mark that is lost is missed.
func TestNothingWrittenIsLost(t *testing.T) {
	const writers, rounds, size = 2, 800, 16 << 20
	r := newRAM(t, size)
	mem := r.Regions()[0].Bytes
	r.StartTracking()
	copied := make([]uint64, size/PageSize)
	into := make([]uint64, r.Regions()[0].Words())
	collect := func() {
		r.CollectWritten(0, into)
		for i, w := range into {
			for ; w != 0; w &= w - 1 {
				p := 64*i + bits.TrailingZeros64(w)
				copied[p] = counter(mem, p).Load()
			}
			into[i] = 0
		}
	}
	for round := range uint64(rounds) {
		var running sync.WaitGroup
		var ended atomic.Int32
		for w := range writers {
			running.Go(func() {
				for i := w; i < len(copied); i += writers {
					p := i * 0x9e37 % len(copied) // about all the words at any time
					counter(mem, p).Store(round + 1)
					r.Wrote(&mem[p*PageSize], 8)
				}
				ended.Add(1)
			})
		}
		for ended.Load() < writers {
			collect()
		}
		running.Wait()
		collect()
		for p, got := range copied {
			if got != round+1 {
				t.Fatalf("round %d, page %d: copied %d", round, p, got)
			}
		}
	}
}

func TestWroteAllocatesNothing(t *testing.T) {
	r := newRAM(t, Alignment)
	r.StartTracking()
	b, into := r.Bytes(0, 4096), make([]uint64, 8)
	if n := testing.AllocsPerRun(100, func() { r.Wrote(&b[0], 4096); r.CollectWritten(0, into) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWrote(b *testing.B) {
	r, err := New(Alignment)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	p := &r.Bytes(0, 1)[0]
	for _, on := range []bool{false, true} {
		b.Run(map[bool]string{false: "off", true: "on"}[on], func(b *testing.B) {
			if on {
				r.StartTracking()
			}
			for b.Loop() {
				r.Wrote(p, 4096)
			}
		})
	}
}
