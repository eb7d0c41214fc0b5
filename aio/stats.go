package aio

import "sync/atomic"

// Stats is what an engine says about itself. The figures are read one after another while
// the engine goes on, so that they may be a few requests apart.
type Stats struct {
	Engine     EngineKind // what runs, which may be another than was asked for
	Capacity   int        // credits: most requests in flight, all ports together
	Demand     int        // sum of the attached ports' demand
	InFlight   int        // requests popped and not completed, as of the engine's last turn
	Lent       int        // of those, how many ports have beyond their shares
	WrittenOff int        // of those, how many don't count against the capacity: share.go
	Enters     uint64     // times the engine's thread entered the kernel to submit and wait
}

// PortStats is what one port has done since it was attached.
type PortStats struct {
	Read, Write  ClassStats
	Long         ClassStats  // flush, discard, write-zeroes
	Demand       int         // requests its queues may hold
	InFlight     int         // requests popped and not completed
	WrittenOff   int         // of InFlight, how many don't count against the engine's capacity
	Kept         int         // of InFlight, how many have failed and wait for Retry
	LongInFlight int         // of InFlight, the flushes, discards and write-zeroes
	SyncDebt     uint64      // bytes written that are not known to be on stable storage (debt.go)
	Flushes      uint64      // of Long, the flushes
	Reserve      int         // credits that no other port gets
	Share        int         // credits it gets before others may have more than theirs
	Window       int         // most that may be in flight; Unlimited without a bound
	Windows      [causes]int // bound of each Cause, of which Window is the least
	Grace        Grace       // how long drains would have taken
}

// NoStats is the statistics of a port that doesn't exist: nothing, and no bounds.
func NoStats() PortStats {
	s := PortStats{Window: Unlimited}
	for c := range s.Windows {
		s.Windows[c] = Unlimited
	}
	return s
}

// ClassStats counts the completed requests of one class.
type ClassStats struct {
	Requests uint64  // completed, with errors too
	Bytes    uint64  // moved, or for discard and write-zeroes the length of the ranges
	Errors   uint64  // of the requests, those completed with an error
	Latency  Latency // from being popped to completion
}

// class groups operations that cost alike.
type class uint8

const (
	classRead class = iota
	classWrite
	classLong
	classes
)

func classOf(op Op) class {
	switch op {
	case Read:
		return classRead
	case Write:
		return classWrite
	default:
		return classLong
	}
}

// engineCounters and portCounters are written by the engine's thread only and read by any.
type engineCounters struct {
	capacity, demand, inFlight, lent, writtenOff atomic.Int64
	enters                                       atomic.Uint64
}

type portCounters struct {
	started                            atomic.Uint64
	reserve, share, writtenOff, parked atomic.Int64
	long                               atomic.Int64
	debt                               debt
	bounds                             [causes]atomic.Int64
	class                              [classes]classCounters
}

type classCounters struct {
	requests, bytes, errors atomic.Uint64
	latency                 histogram
}

// tally is what a port's counters lack: the requests popped in this visit, and those completed since, of one class and with one
// latency, as those have that were popped in one turn and reaped in one. An atomic operation makes the processor wait for all
// that it has begun, the guest's memory that comes from another processor's cache above all; so there are a few for a batch and none for a request.
type tally struct {
	started          uint64
	completed, bytes uint64
	written          uint64 // debt.go
	class            class
	latency          int64 // nanoseconds
}

// count notes a completed request.
func (p *Port) count(c class, latency, bytes int64, failed bool) {
	t := &p.tally
	if t.class != c || t.latency != latency {
		p.post()
		t.class, t.latency = c, latency
	}
	t.completed++
	t.bytes += uint64(bytes)
	if failed {
		p.stats.class[c].errors.Add(1)
	}
}

// post brings the counters up to date: before guests see what has completed, and after each visit.
func (p *Port) post() {
	t := &p.tally
	if t.started > 0 { // before what has completed: inFlightNow
		p.stats.started.Add(t.started)
		t.started = 0
	}
	if t.completed == 0 {
		return
	}
	if t.written > 0 {
		p.stats.debt.written.Add(t.written)
	}
	c := &p.stats.class[t.class]
	c.bytes.Add(t.bytes)
	c.latency.add(t.latency, t.completed)
	c.requests.Add(t.completed)
	t.completed, t.bytes, t.written = 0, 0, 0
}

func (c *classCounters) read() ClassStats {
	return ClassStats{Requests: c.requests.Load(), Bytes: c.bytes.Load(), Errors: c.errors.Load(), Latency: c.latency.read()}
}

// Stats returns the engine's figures. Any goroutine may call it; it doesn't wait.
func (e *Engine) Stats() Stats {
	return Stats{
		Engine:   e.kind,
		Capacity: int(e.stats.capacity.Load()),
		Demand:   int(e.stats.demand.Load()),
		InFlight: int(e.stats.inFlight.Load()),
		Lent:     int(e.stats.lent.Load()), WrittenOff: int(e.stats.writtenOff.Load()),
		Enters: e.stats.enters.Load(),
	}
}

// Stats returns the port's figures, the last ones after it was detached. Any goroutine may
// call it; it doesn't wait.
func (p *Port) Stats() PortStats {
	s := PortStats{
		Read:       p.stats.class[classRead].read(),
		Write:      p.stats.class[classWrite].read(),
		Long:       p.stats.class[classLong].read(),
		WrittenOff: int(p.stats.writtenOff.Load()), Kept: int(p.stats.parked.Load()),
		LongInFlight: int(p.stats.long.Load()), SyncDebt: p.stats.debt.bytes(),
		Flushes: p.stats.debt.flushes.Load(),
		Demand:  p.demand,
		Reserve: int(p.stats.reserve.Load()), Share: int(p.stats.share.Load()),
		Window: Unlimited,
	}
	for c := range s.Windows {
		s.Windows[c] = int(p.stats.bounds[c].Load())
		s.Window = min(s.Window, s.Windows[c])
	}
	// The bounds are read before: where one is 0 and nothing is in flight, it stays so.
	s.InFlight = p.inFlightNow()
	s.Grace = p.grace.samples.read(p.engine.timer.now(), s.InFlight > 0)
	return s
}

// inFlightNow is for goroutines that are not the engine's. Completions are read before starts: never fewer
// starts than completions.
func (p *Port) inFlightNow() int {
	var done uint64
	for c := range p.stats.class {
		done += p.stats.class[c].requests.Load()
	}
	return int(p.stats.started.Load() - done)
}
