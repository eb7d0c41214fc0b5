package aio

import (
	"math"
	"time"
)

// Shares: who gets a credit when there are fewer than the disks could use.
//
//	demand ≤ capacity   every port's share is its demand: nobody ever waits for another
//	demand > capacity   reserve = min(4, capacity / ports, demand)
//	                    share   = reserve + (capacity − Σ reserve) · weight / Σ weight, at most the demand;
//	                              what a small demand leaves goes to the others in the same proportion
//
// The reserve is kept for its port even while that is idle. All other credits are one pool.
// A port below its share is *entitled* to the pool's next free credit; one at or beyond its
// share *borrows*, which it may while nobody entitled waits. A loan comes back with the
// completion. So no port waits while a credit that can be lent is free, and a port that was
// idle gets its share as fast as the loans come back.
//
// A disk that is slow beside the others, or hangs, keeps its credits for longer than a
// credit is worth to the others. When a port waits for a credit, requests of other ports that
// have been in flight for longer than
//
//	max(5 ms, 2 · the usual time of a request on this engine)
//
// are written off: they don't count against the capacity any more, which is as if it grew
// by as many. They still count against the share of their own port, and while a port has any,
// it borrows only what no other port wants. A disk that is always that slow keeps its share
// in flight, and takes next to nothing from the others. The usual time is a moving average
// over completions of all ports, so on an engine whose disks are all slow nothing is written off, and
// where they all become slow nothing is after some hundred requests. Those written off count in it with the
// age at which they may be, for a slow disk beside fast ones is not what is usual.
// While nothing has completed yet, one second is the age. No single port has more in flight
// than the capacity.
const (
	// maxReserve is the most credits a port keeps while it doesn't need them.
	maxReserve = 4

	// writeOffAge is the least age at which a request is written off, and writeOffTimes
	// how many times the usual time it is.
	writeOffAge   = int64(5 * time.Millisecond)
	writeOffTimes = 2
	writeOffFirst = int64(time.Second) // while the usual time is not known

	// DefaultWeight is the weight of a port that asks for none, MaxWeight the most.
	DefaultWeight = 100
	MaxWeight     = 1000
)

// turn is the order in which ports get the pool's credits: an entitled port before
// one that borrows, and that before one with requests written off. Within each they rotate.
type turn uint8

const (
	entitled turn = iota
	borrowing
	indebted
	turns
)

func (p *Port) turn() turn {
	switch {
	case p.inFlight < p.share:
		return entitled
	case p.writtenOff == 0:
		return borrowing
	default:
		return indebted
	}
}

// divide sets every port's reserve and share from the capacity.
func (e *Engine) divide() {
	rest := e.capacity
	for p := range e.ports {
		p.reserve = min(maxReserve, e.capacity/len(e.ports), p.demand)
		p.share = p.reserve
		rest -= p.reserve
	}
	for rest > 0 { // each round gives all there is, or satisfies a port
		weights, most := 0, 0
		for p := range e.ports {
			if p.share < p.demand {
				weights += p.weight
			}
		}
		given := 0
		for p := range e.ports {
			if p.share < p.demand {
				n := min(rest*p.weight/weights, p.demand-p.share)
				p.share += n
				given += n
				most = max(most, n)
			}
		}
		if rest -= given; most == 0 {
			break // satisfied, or less than one credit each: it stays in the pool
		}
	}
	e.setAside, e.lent = 0, 0
	for p := range e.ports {
		e.setAside += max(p.reserve-p.inFlight, 0)
		e.lent += max(p.inFlight-p.share, 0)
		p.stats.reserve.Store(int64(p.reserve))
		p.stats.share.Store(int64(p.share))
		e.schedule(p)
	}
}

// active is the number of requests that count against the capacity.
func (e *Engine) active() int { return e.inFlight - e.writtenOff }

// pool is the number of free credits that are not kept for a port.
func (e *Engine) pool() int { return e.capacity - e.active() - e.setAside }

// credit reports whether the port may have one more request in flight.
func (e *Engine) credit(p *Port) bool {
	if p.inFlight < p.reserve {
		return e.active() < e.capacity
	}
	return e.pool() > 0
}

// next returns the port whose turn it is, or nil if none that has something to pop gets a
// credit.
func (e *Engine) next() *Port {
	if e.pool() > 0 {
		for t := range e.turns {
			for p := e.turns[t].first; p != nil; p = p.next {
				if e.credit(p) { // nearly always the first
					return p
				}
			}
		}
		return nil
	}
	if e.setAside > 0 {
		for p := e.turns[entitled].first; p != nil; p = p.next {
			if e.credit(p) {
				return p
			}
		}
	}
	return nil
}

// waits reports whether a port other than p has something to pop.
func (e *Engine) waits(p *Port) bool {
	for t := range e.turns {
		if l := &e.turns[t]; l.first != nil && (l.first != p || l.last != p) {
			return true
		}
	}
	return false
}

// started takes a credit for a request.
func (e *Engine) started(s *slot) {
	p := s.queue.port
	if p.inFlight < p.reserve {
		e.setAside--
	}
	if p.inFlight >= p.share {
		e.lent++
	}
	e.inFlight++
	p.inFlight++
	s.start = e.now
	s.epoch = p.grace.start(s.req.Op.Long(), e.now)
	p.ages.push(s)
	p.tally.started++
}

// ended gives the credit of a request back.
func (e *Engine) ended(s *slot) {
	p := s.queue.port
	e.inFlight--
	p.inFlight--
	if p.inFlight < p.reserve {
		e.setAside++
	}
	if p.inFlight >= p.share {
		e.lent--
	}
	p.grace.finish(s.epoch, s.req.Op.Long(), e.now)
	took := e.now - s.start
	if e.usual == 0 {
		e.usual = took
	}
	if s.writtenOff {
		took = min(took, writeOffTimes*e.usual)
		s.writtenOff = false
		p.writtenOff--
		e.writtenOff--
		p.stats.writtenOff.Store(int64(p.writtenOff))
		if e.writtenOff == 0 {
			e.fit()
		}
	} else {
		p.ages.remove(s)
	}
	e.usual += (took - e.usual) / 64
}

// writeOff writes off the requests that are too old while another port waits for a credit,
// and reports whether there were any. It has the engine woken when the next will be.
func (e *Engine) writeOff() bool {
	age := writeOffFirst
	if e.usual > 0 {
		age = max(writeOffAge, writeOffTimes*e.usual)
	}
	any, due := false, int64(math.MaxInt64)
	for p := range e.ports {
		if p.ages.oldest == nil || !e.waits(p) {
			continue
		}
		for s := p.ages.oldest; s != nil && e.capacity+e.writtenOff < maxCapacity; s = p.ages.oldest {
			if s.start+age > e.now {
				due = min(due, s.start+age)
				break
			}
			e.sink(s)
			any = true
		}
	}
	if any {
		e.fit()
	} else if due < math.MaxInt64 {
		e.timer.wakeAt(due)
	}
	return any
}

// sink writes one request off.
func (e *Engine) sink(s *slot) {
	p := s.queue.port
	p.ages.remove(s)
	s.writtenOff = true
	p.writtenOff++
	e.writtenOff++
	p.stats.writtenOff.Store(int64(p.writtenOff))
	e.schedule(p)
}
