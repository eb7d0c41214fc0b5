package virtiotest

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Memory is guest RAM of a few ranges, mapped outside Go's heap. It implements
// virtio.Memory, and keeps what devices say they have written until TakeWritten.
type Memory struct {
	t      testing.TB
	ranges []ramRange
	next   uint64 // bump allocator in the first range
}

type ramRange struct {
	base    uint64
	mem     []byte
	written []atomic.Bool // by page
}

const pageSize = 4096

// Range is a piece of guest RAM: pages.
type Range struct{ Base, Size uint64 }

// NewMemory maps RAM; without ranges 16 MiB at 0 and 1 MiB at 4 GiB. The last
// range is followed by a page that faults, so that a device that runs over the end
// of RAM doesn't get away with it.
func NewMemory(t testing.TB, ranges ...Range) *Memory {
	t.Helper()
	if len(ranges) == 0 {
		ranges = []Range{{0, 16 << 20}, {4 << 30, 1 << 20}}
	}
	m := &Memory{t: t, next: ranges[0].Base + 0x1000}
	for _, r := range ranges {
		const guard = 4096
		b, err := unix.Mmap(-1, 0, int(r.Size)+guard, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mprotect(b[r.Size:], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(b) }) //nolint:errcheck // our own mapping
		m.ranges = append(m.ranges, ramRange{r.Base, b[:r.Size:r.Size], make([]atomic.Bool, (r.Size+pageSize-1)/pageSize)})
	}
	return m
}

// Bytes implements virtio.Memory.
func (m *Memory) Bytes(gpa, n uint64) []byte {
	for _, r := range m.ranges {
		if gpa < r.base {
			continue
		}
		off, size := gpa-r.base, uint64(len(r.mem))
		if off <= size && n <= size-off && (n > 0 || off < size) {
			return r.mem[off : off+n : off+n]
		}
	}
	return nil
}

// Alloc returns the guest address of n zero bytes nobody else uses, in the first range.
func (m *Memory) Alloc(n, align uint64) uint64 {
	m.t.Helper()
	gpa := (m.next + align - 1) &^ (align - 1)
	b := m.Bytes(gpa, n)
	if b == nil {
		m.t.Fatalf("virtiotest: no room for %d bytes of guest memory", n)
	}
	m.next = gpa + n
	return gpa
}

// Put allocates room for p and copies it there.
func (m *Memory) Put(p []byte) uint64 {
	gpa := m.Alloc(uint64(max(len(p), 1)), 16)
	copy(m.Bytes(gpa, uint64(len(p))), p)
	return gpa
}

// RAM is like Bytes, but what isn't RAM fails the test.
func (m *Memory) RAM(gpa, n uint64) []byte {
	m.t.Helper()
	b := m.Bytes(gpa, n)
	if b == nil {
		m.t.Fatalf("virtiotest: %d bytes at %#x are not guest RAM", n, gpa)
	}
	return b
}

// Reset forgets every allocation and zeroes the first range: for tests that use
// one memory many times.
func (m *Memory) Reset() {
	clear(m.ranges[0].mem[:m.next-m.ranges[0].base])
	m.next = m.ranges[0].base + 0x1000
}
