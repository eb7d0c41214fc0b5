package aio

import (
	"math"
	"sync/atomic"
	"time"

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
	rate    rate          // bytes per second
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
			p.Synced(s.mark, time.Duration(p.engine.now-s.start))
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
// stable storage, and how long that took. Any goroutine.
func (p *Port) Synced(mark uint64, took time.Duration) {
	d := &p.stats.debt
	for {
		before := d.synced.Load()
		if mark <= before {
			return
		}
		if d.synced.CompareAndSwap(before, mark) {
			d.rate.add(mark-before, took)
			return
		}
	}
}

// rate is a moving average of bytes per second, of syncs that had enough to do to tell.
type rate struct{ bits atomic.Uint64 }

const (
	// rateFrom is the least bytes of a sync that counts: with fewer, the time is the device's
	// for any sync at all.
	rateFrom = 1 << 20

	rateWeight = 0.25 // of the latest sync
)

func (r *rate) load() float64 { return math.Float64frombits(r.bits.Load()) }

func (r *rate) add(bytes uint64, took time.Duration) {
	if bytes < rateFrom || took <= 0 {
		return
	}
	now := float64(bytes) / took.Seconds()
	if before := r.load(); before > 0 {
		now = before + rateWeight*(now-before)
	}
	r.bits.Store(math.Float64bits(now))
}
