package aio

import "fmt"

// verify panics if the engine's books don't agree with each other (EBB_CHECK=1). It runs
// between publishing and waiting.
func (e *Engine) verify() {
	inFlight, demand, writtenOff, setAside, lent := 0, 0, 0, 0, 0
	for p := range e.ports {
		inFlight += p.inFlight
		demand += p.demand
		writtenOff += p.writtenOff
		setAside += max(p.reserve-p.inFlight, 0)
		lent += max(p.inFlight-p.share, 0)
		p.verify()
	}
	for i := range e.again.count {
		s := e.again.buf[(e.again.head+i)&(len(e.again.buf)-1)]
		assert(s.seq != 0, "a request that waits for its next operation has no slot")
	}
	assert(inFlight == e.inFlight, "ports have %d requests in flight, the engine %d", inFlight, e.inFlight)
	assert(e.slots.used == e.inFlight, "%d slots are in use for %d requests", e.slots.used, e.inFlight)
	assert(e.capacity == capacityFor(max(demand, e.expected), e.limit), "capacity %d with a demand of %d", e.capacity, demand)
	assert(writtenOff == e.writtenOff, "ports have %d requests written off, the engine %d", writtenOff, e.writtenOff)
	assert(setAside == e.setAside, "%d credits are set aside, the ports' reserves say %d", e.setAside, setAside)
	assert(lent == e.lent, "%d credits are lent, the ports' shares say %d", e.lent, lent)
	assert(e.slots.limit*slotChunk >= e.capacity+e.writtenOff, "%d slots for %d credits and %d written off", e.slots.limit*slotChunk, e.capacity, e.writtenOff)
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
	assert(ready == p.ready.len()+p.stuck.len(), "disk %s: %d queues are ready, %d and %d listed", p.name, ready, p.ready.len(), p.stuck.len())
	assert(p.stuck.len() == 0 || p.long == maxLong, "disk %s: %d queues wait for one of %d long operations", p.name, p.stuck.len(), p.long)
	assert(p.inFlight >= 0 && p.long >= 0 && p.long <= min(p.inFlight, maxLong),
		"disk %s: %d in flight, %d of them long", p.name, p.inFlight, p.long)
	assert(p.runnable() == (p.list != nil), "disk %s: something to pop: %v, on a list: %v", p.name, p.runnable(), p.list != nil)
	assert(p.list == nil || p.list == &p.engine.turns[p.turn()], "disk %s is on the list of another turn", p.name)
	young := 0
	for s := p.ages.oldest; s != nil; s = s.newer {
		young++
		assert(s.newer == nil || s.start <= s.newer.start, "disk %s: the ages are out of order", p.name)
	}
	assert(young == p.inFlight-p.writtenOff, "disk %s: %d in flight, %d written off, %d listed by age", p.name, p.inFlight, p.writtenOff, young)
	assert(p.grace.inFlight[0]+p.grace.inFlight[1] == p.inFlight, "disk %s: %d in flight, the epochs say %v", p.name, p.inFlight, p.grace.inFlight)
	assert(p.inFlight == p.Stats().InFlight, "disk %s: %d in flight, statistics say %d", p.name, p.inFlight, p.Stats().InFlight)
}

func assert(ok bool, format string, args ...any) {
	if !ok {
		panic("aio: check: " + fmt.Sprintf(format, args...))
	}
}
