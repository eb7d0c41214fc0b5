package virtio

// MarkRings says, by Memory.Wrote, that the used ring of every queue the driver has enabled
// was written, all of it. That is not said for every Publish: a busy ring is written all the
// time, so that it has to be carried by the last pass anyhow. A migration calls it once,
// after the device has nothing in flight and takes nothing (so that nobody writes to the rings
// any more) and before it collects what was written for the last time. The rings of a driver that resets the device are
// marked then. Any goroutine.
func (t *PCI) MarkRings() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.markRings()
}

// markRings is MarkRings. t.mu is held.
func (t *PCI) markRings() {
	for i := range t.regs.queues {
		if q := &t.regs.queues[i]; q.enabled {
			q.queue.markRing()
		}
	}
}

// markRing says that the used ring was written: flags, idx, elements, avail_event. A queue
// that was never started has none.
func (q *Queue) markRing() {
	if n := usedSize(q.layout.size); uint64(len(q.rings.used)) >= n {
		q.mem.Wrote(&q.rings.used[0], n)
	}
}
