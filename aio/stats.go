package aio

import "sync/atomic"

// Stats is what an engine says about itself. The figures are read one after another while
// the engine goes on, so that they may be a few requests apart.
type Stats struct {
	Engine   EngineKind // what runs, which may be another than was asked for
	Capacity int        // credits: most requests in flight, all ports together
	Demand   int        // sum of the attached ports' demand
	InFlight int        // requests popped and not completed, as of the engine's last turn
	Enters   uint64     // times the engine's thread entered the kernel to submit and wait
}

// PortStats is what one port has done since it was attached.
type PortStats struct {
	Read, Write ClassStats
	Long        ClassStats // flush, discard, write-zeroes
	InFlight    int        // requests popped and not completed
	Window      int        // most that may be; Unlimited without a bound
}

// ClassStats counts the completed requests of one class.
type ClassStats struct {
	Requests uint64 // completed, with errors too
	Bytes    uint64 // moved, or for discard and write-zeroes the length of the ranges
	Errors   uint64 // of the requests, those completed with an error
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
	capacity, demand, inFlight atomic.Int64
	enters                     atomic.Uint64
}

type portCounters struct {
	started atomic.Uint64
	window  atomic.Int64
	class   [classes]classCounters
}

type classCounters struct {
	requests, bytes, errors atomic.Uint64
}

func (c *classCounters) read() ClassStats {
	return ClassStats{Requests: c.requests.Load(), Bytes: c.bytes.Load(), Errors: c.errors.Load()}
}

// Stats returns the engine's figures. Any goroutine may call it; it doesn't wait.
func (e *Engine) Stats() Stats {
	return Stats{
		Engine:   e.kind,
		Capacity: int(e.stats.capacity.Load()),
		Demand:   int(e.stats.demand.Load()),
		InFlight: int(e.stats.inFlight.Load()),
		Enters:   e.stats.enters.Load(),
	}
}

// Stats returns the port's figures, the last ones after it was detached. Any goroutine may
// call it; it doesn't wait.
func (p *Port) Stats() PortStats {
	s := PortStats{
		Read:   p.stats.class[classRead].read(),
		Write:  p.stats.class[classWrite].read(),
		Long:   p.stats.class[classLong].read(),
		Window: int(p.stats.window.Load()),
	}
	// Completions are read before starts: never fewer starts than completions.
	s.InFlight = int(p.stats.started.Load() - s.Read.Requests - s.Write.Requests - s.Long.Requests)
	return s
}
