package memory

import "sync/atomic"

// PageSize is the unit of the bitmap of written pages in bytes: KVM's dirty log has the same.
const PageSize = 4096

// written is what devices have written since it was last collected: a bit per page,
// by region. KVM's dirty log (KVM_GET_DIRTY_LOG) has only what the guest itself writes.
type written struct {
	regions [][]uint64
}

// Words is the length of the region's bitmap of pages in words of 64.
func (g Region) Words() int { return (len(g.Bytes)/PageSize + 63) / 64 }

// StartTracking has Wrote remember pages, none to begin with. What was written before is
// seen by whoever reads the memory after StartTracking, as a first full copy does. Any
// goroutine, one at a time.
func (r *RAM) StartTracking() {
	w := &written{}
	for _, g := range r.regions {
		w.regions = append(w.regions, make([]uint64, g.Words()))
	}
	r.written.Store(w)
	// A writer that found no bitmap just now has made its stores, but they may be in its
	// processor's store buffer still: nothing else makes them visible.
	barrier()
}

// StopTracking ends StartTracking and forgets what was remembered. Any goroutine, one at a time.
func (r *RAM) StopTracking() { r.written.Store(nil) }

// CollectWritten adds to into the pages of a region, an index of Regions, that were
// written since the last call: bit p%64 of word p/64 is page p. They are forgotten here.
// into has at least the region's Words. Who copies a page after that has all that was
// written before it was marked; what is written meanwhile is in the next call. Without
// StartTracking there is nothing. Any goroutine.
func (r *RAM) CollectWritten(region int, into []uint64) {
	w := r.written.Load()
	if w == nil {
		return
	}
	bits := w.regions[region]
	into = into[:len(bits)]
	for i := range bits {
		if atomic.LoadUint64(&bits[i]) != 0 { // most are empty, and are left to those who write
			into[i] |= atomic.SwapUint64(&bits[i], 0)
		}
	}
}

// mark notes that n bytes at byte off of a region were written, at least one, all inside it.
//
// A bit that is set already is set again: only a locked instruction keeps the stores to the
// page in front of it, and a mere look at the bit could come before them.
func (w *written) mark(region int, off, n uint64) {
	for p := off / PageSize; p <= (off+n-1)/PageSize; p++ {
		atomic.OrUint64(&w.regions[region][p/64], 1<<(p%64))
	}
}
