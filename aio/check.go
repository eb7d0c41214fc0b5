package aio

import "fmt"

// verify panics if the engine's books don't agree with each other (EBB_CHECK=1). It runs
// between publishing and waiting.
func (e *Engine) verify() {
	inFlight, demand := 0, 0
	for p := range e.ports {
		inFlight += p.inFlight
		demand += p.demand
		p.verify()
	}
	for i := range e.again.count {
		s := e.again.buf[(e.again.head+i)&(len(e.again.buf)-1)]
		assert(s.seq != 0, "a request that waits for its next operation has no slot")
	}
	assert(inFlight == e.inFlight, "ports have %d requests in flight, the engine %d", inFlight, e.inFlight)
	assert(e.slots.used == e.inFlight, "%d slots are in use for %d requests", e.slots.used, e.inFlight)
	assert(e.capacity == capacityFor(demand, e.limit), "capacity %d with a demand of %d", e.capacity, demand)
	assert(e.slots.limit >= e.capacity, "%d slots for %d credits", e.slots.limit, e.capacity)
	assert(e.dirty.len() == 0, "%d queues were not published", e.dirty.len())
	assert(e.settling.len() == 0, "%d ports were not settled", e.settling.len())
}

func (p *Port) verify() {
	ready := 0
	for _, q := range p.queues {
		if q.ready {
			ready++
		}
	}
	assert(ready == p.ready.len(), "disk %s: %d queues are ready, %d listed", p.name, ready, p.ready.len())
	assert(p.inFlight >= 0 && p.long >= 0 && p.long <= min(p.inFlight, maxLong),
		"disk %s: %d in flight, %d of them long", p.name, p.inFlight, p.long)
	assert(!p.runnable() || p.listed, "disk %s has something to pop and is forgotten", p.name)
	assert(p.inFlight == p.Stats().InFlight, "disk %s: %d in flight, statistics say %d", p.name, p.inFlight, p.Stats().InFlight)
}

func assert(ok bool, format string, args ...any) {
	if !ok {
		panic("aio: check: " + fmt.Sprintf(format, args...))
	}
}
