package bus

import (
	"bytes"
	"testing"
)

// recorder answers reads with its own byte and keeps the last write.
type recorder struct {
	id   byte
	off  uint64
	last []byte
}

func (r *recorder) Read(off uint64, p []byte) {
	r.off = off
	for i := range p {
		p[i] = r.id
	}
}

func (r *recorder) Write(off uint64, p []byte) { r.off, r.last = off, bytes.Clone(p) }

func TestRouting(t *testing.T) {
	var b Bus
	for _, s := range []struct {
		base, size uint64
		id         byte
	}{{0x100, 0x10, 1}, {0x110, 0x10, 2}, {0x10, 1, 3}, {1 << 40, 1 << 20, 4}} {
		if err := b.Add(s.base, s.size, &recorder{id: s.id}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		addr uint64
		n    int
		want byte
	}{
		{0x100, 1, 1}, {0x10f, 1, 1}, {0x10f, 2, 0xff}, {0x110, 4, 2}, {0x11f, 1, 2}, {0x120, 1, 0xff},
		{0x10, 1, 3}, {0x10, 2, 0xff}, {0xf, 1, 0xff}, {0, 4, 0xff}, {1<<40 + 1<<20 - 8, 8, 4}, {^uint64(0), 4, 0xff},
	} {
		p := make([]byte, c.n)
		b.Read(c.addr, p)
		if !bytes.Equal(p, bytes.Repeat([]byte{c.want}, c.n)) {
			t.Errorf("Read(%#x, %d) = % x, want %#x", c.addr, c.n, p, c.want)
		}
	}
}

func TestOverlapsAreRefused(t *testing.T) {
	var b Bus
	if err := b.Add(0x100, 0x10, &recorder{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range [][2]uint64{{0x100, 1}, {0xff, 2}, {0x10f, 1}, {0, 0x1000}, {0x200, 0}, {^uint64(0), 2}} {
		if b.Add(s[0], s[1], &recorder{}) == nil {
			t.Errorf("Add(%#x, %#x) succeeded", s[0], s[1])
		}
	}
	b.Remove(0x100)
	if err := b.Add(0xff, 2, &recorder{}); err != nil {
		t.Errorf("after Remove: %v", err)
	}
}

func TestWriteSeesOffset(t *testing.T) {
	var b Bus
	r := &recorder{}
	if err := b.Add(0x3f8, 8, r); err != nil {
		t.Fatal(err)
	}
	b.Write(0x3fb, []byte{0x83})
	if r.off != 3 || !bytes.Equal(r.last, []byte{0x83}) {
		t.Errorf("handler saw % x at %d", r.last, r.off)
	}
}
