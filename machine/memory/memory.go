// Package memory is a guest's RAM: anonymous memory outside the Go heap, laid
// out around the 32-bit hole in which PCI and the interrupt controllers live.
package memory

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// HoleStart and HoleEnd bound the 32-bit hole. RAM that doesn't fit below it
	// goes on at 4 GiB.
	HoleStart uint64 = 3 << 30
	HoleEnd   uint64 = 4 << 30

	// Alignment of a size: whole 2 MiB pages, so that no huge page is left half used.
	Alignment uint64 = 2 << 20
)

// Region is one contiguous piece of RAM.
type Region struct {
	GPA   uint64 // guest-physical address of Bytes[0]
	Bytes []byte // the host's view; not Go memory, so it may hold no Go pointers
}

// RAM is all of a guest's memory: one region, or two around the hole. Its layout
// never changes, so any goroutine may look things up in it. What the bytes hold
// changes under the reader's feet: the guest writes when it likes.
type RAM struct {
	regions []Region
	written atomic.Pointer[written] // nil: nobody wants to know
}

// New maps size bytes of zeroed RAM, a multiple of Alignment. Pages are taken
// from the host when they are first touched.
func New(size uint64) (*RAM, error) {
	if size == 0 || size%Alignment != 0 {
		return nil, fmt.Errorf("guest memory of %d bytes is not a multiple of 2 MiB", size)
	}
	r := &RAM{}
	low := min(size, HoleStart)
	for _, part := range []struct{ gpa, size uint64 }{{0, low}, {HoleEnd, size - low}} {
		if part.size == 0 {
			continue
		}
		b, err := mapAligned(part.size)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("the host gives no %d MiB for the guest's memory (%w); choose less with --memory, or free some", part.size>>20, err)
		}
		// Huge pages make nested page tables shallow. A host without them is only slower.
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
		_ = unix.Madvise(b, unix.MADV_DONTDUMP)
		r.regions = append(r.regions, Region{GPA: part.gpa, Bytes: b})
	}
	return r, nil
}

// Regions returns the pieces in ascending order of address. The caller must not
// change the slice.
func (r *RAM) Regions() []Region { return r.regions }

// Size returns the size of all regions in bytes.
func (r *RAM) Size() (n uint64) {
	for _, g := range r.regions {
		n += uint64(len(g.Bytes))
	}
	return n
}

// LowSize returns how many bytes lie below the hole.
func (r *RAM) LowSize() uint64 { return uint64(len(r.regions[0].Bytes)) }

// Bytes returns the host's view of [gpa, gpa+n), or nil unless all of it is RAM
// of one region. gpa and n come from the guest and may be anything.
func (r *RAM) Bytes(gpa, n uint64) []byte {
	for i := range r.regions {
		g := &r.regions[i]
		size := uint64(len(g.Bytes))
		if off := gpa - g.GPA; gpa >= g.GPA && off <= size && n <= size-off {
			return g.Bytes[off : off+n : off+n]
		}
	}
	return nil
}

// Close unmaps everything. Preconditions: no vCPU runs, and no request that
// points into the memory is in flight.
func (r *RAM) Close() {
	for _, g := range r.regions {
		unmap(g.Bytes)
	}
	r.regions = nil
}

// Reserve is a range of addresses that is not RAM and that a guest's memory map
// calls reserved.
type Reserve struct{ GPA, Size uint64 }
