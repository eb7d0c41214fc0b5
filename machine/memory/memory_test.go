package memory

import "testing"

func TestBytesStaysInsideOneRegion(t *testing.T) {
	r, err := New(HoleStart + 4<<20) // 4 MiB go above the hole
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := len(r.Regions()); got != 2 {
		t.Fatalf("regions = %d, want 2", got)
	}
	const top = HoleEnd + 4<<20
	for _, c := range []struct {
		gpa, n uint64
		ok     bool
	}{
		{0, 1, true},
		{0, HoleStart, true},
		{0, HoleStart + 1, false},
		{HoleStart - 1, 1, true},
		{HoleStart - 1, 2, false},
		{HoleStart, 1, false},
		{HoleStart, 0, true}, // empty, at the end of a region
		{HoleEnd - 1, 2, false},
		{HoleEnd, 4 << 20, true},
		{top - 1, 1, true},
		{top, 1, false},
		{^uint64(0), 1, false},
		{^uint64(0), ^uint64(0), false},
		{1, ^uint64(0), false},
		{HoleEnd, ^uint64(0) - HoleEnd + 1, false}, // would wrap around to 0
	} {
		b := r.Bytes(c.gpa, c.n)
		if ok := b != nil; ok != c.ok || ok && uint64(len(b)) != c.n {
			t.Errorf("Bytes(%#x, %#x): %d bytes, ok %v; want ok %v", c.gpa, c.n, len(b), ok, c.ok)
		}
	}
}

func TestRegionsAreDistinctMemory(t *testing.T) {
	r, err := New(HoleStart + Alignment)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Bytes(HoleStart-1, 1)[0] = 1
	r.Bytes(HoleEnd, 1)[0] = 2
	if a, b := r.Bytes(HoleStart-1, 1)[0], r.Bytes(HoleEnd, 1)[0]; a != 1 || b != 2 {
		t.Fatalf("read back %d and %d, want 1 and 2", a, b)
	}
}

// Else KVM could not use huge pages.
func TestHostAddressIsAlignedLikeTheGuests(t *testing.T) {
	for range 4 { // the kernel may hit it by chance
		r, err := New(HoleStart + 3*Alignment)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, g := range r.Regions() {
			if host := hostAddress(g.Bytes); host%Alignment != g.GPA%Alignment {
				t.Errorf("guest address %#x is at %#x", g.GPA, host)
			}
			g.Bytes[0], g.Bytes[len(g.Bytes)-1] = 1, 1 // all of it is mapped
		}
	}
}

func TestSizeMustBeAligned(t *testing.T) {
	for _, size := range []uint64{0, 1, Alignment - 1, Alignment + 4096} {
		if r, err := New(size); err == nil {
			r.Close()
			t.Errorf("New(%d) succeeded", size)
		}
	}
}
