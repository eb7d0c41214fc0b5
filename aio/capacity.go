package aio

const (
	// minCapacity is the least number of credits, so that small disks beside each other
	// have some depth to share.
	minCapacity = 64

	// maxCapacity is the most: what the completion queue holds beside its slack.
	maxCapacity = 32768
)

// capacityFor is the engine's number of credits, the most requests in flight over all ports:
//
//	demand   = Σ over attached ports of PortConfig.Demand; at least what Expect has announced
//	capacity = min(max(demand, 64), limit)        1 ≤ limit = Config.MaxCapacity ≤ 32768
//
// Each credit is backed by the real thing:
//
//	all        slots               ⌈n / 64⌉ · 64     n = capacity + requests written off, see fit
//	uring      completion entries  ≥ n + 1024, a power of two; where the kernel can't
//	                               resize them ≥ limit + 1024, made once
//	           kernel's threads    min(max(n, 64), workers) of either kind, only while they block
//	native     io_setup events     ≥ n, a power of two if fs.aio-max-nr allows it; a new context,
//	                               made by another thread, beside the old one until that is empty
//	all        workers             min(max(n, 64), workers), only while they block; workers.go shares them out among files
//
//	workers = min(1024, room - 64), with uring a third of that room
//	                                   room: threads the host still lets us start (pids.go)
//
// Nobody shares the kernel's threads out among files. So a port all of whose transfers need one has
//
//	window ≤ max(1, workers / (1 + ports of that kind))
//
// in flight at most, and when it hangs the others go on, also those of another kind, some of whose transfers need one. Those of the latter with O_DIRECT
// leave that to the kernel for up to
//
//	workers / ports with O_DIRECT
//
// requests in flight. Transfers beyond that are asked not to block, and go to ebb's workers if they would.
func capacityFor(demand, limit int) int {
	return min(max(demand, minCapacity), limit)
}

// Expect makes the room for ports that are to come, now rather than when each is attached: the capacity is at least
// what a demand of so much makes it, until it is called with 0. Any goroutine; it doesn't wait.
func (e *Engine) Expect(demand int) {
	slots := newChunks(min(demand, e.limit))
	e.mail.post(func() {
		if e.closing {
			return
		}
		e.expected, e.slots.spare = demand, slots
		e.resize()
	})
}

// resize fits the engine to the attached ports. When it shrinks below what is in flight,
// nothing is popped until completions have brought it down.
func (e *Engine) resize() {
	demand := 0
	for p := range e.ports {
		demand += p.demand
	}
	e.capacity = capacityFor(max(demand, e.expected), e.limit)
	e.fit()
	e.slots.spare = nil // more than was needed
	e.divide()
	e.shareWorkers()
	e.stats.capacity.Store(int64(e.capacity))
	e.stats.demand.Store(int64(demand))
}

// fit backs every credit, and every request that was written off and has not come back.
func (e *Engine) fit() {
	n := e.capacity + (e.writtenOff+slotChunk-1)/slotChunk*slotChunk
	if n == e.backed {
		return
	}
	e.backed = n
	e.slots.resize(n)
	if err := e.backend.resize(n, min(max(n, minWorkers), e.workers)); err != nil {
		e.warnUnbacked(err)
	}
}

// shareWorkers shares the kernel's threads out among the ports.
func (e *Engine) shareWorkers() {
	if e.kind != EngineUring {
		return
	}
	var handed, direct []*Port
	for p := range e.ports {
		switch {
		case p.handOver >= handRemote:
			handed = append(handed, p)
		case p.handOver == handBlocking:
			direct = append(direct, p)
		}
	}
	for _, p := range handed {
		share := max(1, e.workers/(1+len(handed)))
		if share >= p.demand {
			share = Unlimited
		}
		if p.bounds[CauseWorkers] != share {
			p.setBound(CauseWorkers, share)
		}
	}
	for _, p := range direct {
		p.mayBlock = max(1, e.workers/len(direct))
	}
}

func (e *Engine) warnUnbacked(err error) {
	e.log.Warn("the engine's new capacity is not fully backed", "capacity", e.backed, "err", err)
}
