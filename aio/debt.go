package aio

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// debt is what a port owes its disk: bytes that were written and may be nowhere but in a
// cache, the host's or the device's. A flush pays for the writes that completed before it
// began:
//
//	debt = written - mark of the latest-marked flush that succeeded
//	mark = written, when a flush began
//
// Whoever syncs the file otherwise does the same with Written and Synced. A port's debt
// begins with its attachment: what a driver before it wrote is not in there.
type debt struct {
	written atomic.Uint64 // bytes, since the port was attached; the engine's thread writes it
	synced  atomic.Uint64 // of those, how many are on stable storage
	flushes atomic.Uint64 // completed
}

func (d *debt) bytes() uint64 {
	synced := d.synced.Load() // first: it never exceeds what is read after it
	return d.written.Load() - synced
}

// owe accounts for a request that ends.
func (p *Port) owe(s *slot, errno unix.Errno) {
	d := &p.stats.debt
	switch r := &s.req; {
	case r.Op == Flush:
		d.flushes.Add(1)
		if errno == 0 {
			p.Synced(s.mark)
		}
	case r.Durable:
	case r.Op == Write, r.Op == WriteZeroes && s.step == stepFill:
		p.tally.written += uint64(s.done)
	}
}

// Written is how many bytes the port has written since it was attached: the mark of a sync
// that begins now. Any goroutine.
func (p *Port) Written() uint64 { return p.stats.debt.written.Load() }

// Synced says that what was written up to a mark, from Written before the sync began, is on
// stable storage. Any goroutine.
func (p *Port) Synced(mark uint64) {
	d := &p.stats.debt
	for {
		before := d.synced.Load()
		if mark <= before {
			return
		}
		if d.synced.CompareAndSwap(before, mark) {
			return
		}
	}
}
