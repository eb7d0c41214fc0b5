package virtio

import "fmt"

// Queue is the device side of one split virtqueue (2.7).
//
// From Device.Activate until the done of Device.Reset exactly one goroutine may
// call its methods (the engine's thread). They take no lock, allocate nothing and
// never block.
type Queue struct {
	// Fixed for the life of the transport.
	mem       Memory
	index     int
	kickFD    int
	interrupt func()              // used buffer notification to the driver
	fail      func(reason string) // DEVICE_NEEDS_RESET
	limit     uint16

	// Fixed while active, set by start.
	layout   layout
	features uint64
	rings    rings

	// The state of a running queue. Of it migration carries lastAvail, to which the
	// other two indices are equal when nothing is in flight, and failed (state.go).
	lastAvail uint16 // next entry of the available ring to look at
	availIdx  uint16 // the driver's idx, as it was when last asked for: there are chains up to it
	usedIdx   uint16 // next entry of the used ring to fill
	published uint16 // usedIdx as the driver knows it
	usedFlags uint16
	failed    bool // nothing is taken any more until reset
	armed     bool // with EVENT_IDX: a kick was asked for, and not taken back since
	restored  bool // began on another host, and has published nothing since

	inFlight []uint64 // bit per head: taken by Next, not yet in AddUsed
	bufs     []buffer // scratch for walk, its capacity is the longest chain
	chain    Chain    // what Next returned last
}

func newQueue(mem Memory, index int, limit uint16, kickFD int, interrupt func(), fail func(string)) *Queue {
	return &Queue{
		mem: mem, index: index, limit: limit, kickFD: kickFD, interrupt: interrupt, fail: fail,
		inFlight: make([]uint64, (int(limit)+63)/64),
		bufs:     make([]buffer, 0, limit),
	}
}

// start makes the queue ready to run on the rings the driver set up.
func (q *Queue) start(l layout, features uint64) error {
	r, err := l.resolve(q.mem)
	if err != nil {
		return err
	}
	q.layout, q.features, q.rings = l, features, r
	q.lastAvail, q.availIdx, q.usedIdx, q.published, q.usedFlags, q.failed, q.armed, q.restored = 0, 0, 0, 0, 0, false, false, false
	clear(q.inFlight)
	return nil
}

// Index is the virtqueue's number in its device.
func (q *Queue) Index() int { return q.index }

// Size is the queue size the driver chose, in descriptors.
func (q *Queue) Size() int { return int(q.layout.size) }

// KickFD is an eventfd that is signalled when the driver kicks, and now and then
// without reason. Nonblocking. It stays open until PCI.Close, whatever the device status.
func (q *Queue) KickFD() int { return q.kickFD }

// Next takes the next available chain. ok is false if there is none, or if the
// driver broke the rules so badly that the queue has failed. The chain is the queue's, until the next call.
func (q *Queue) Next() (c *Chain, ok bool) {
	if q.failed {
		return nil, false
	}
	// The driver may be writing to the idx just now, on another processor: it is asked for no more often than it must be.
	if q.availIdx == q.lastAvail {
		q.availIdx = q.rings.availIdx()
		ahead := q.availIdx - q.lastAvail
		if ahead == 0 {
			return nil, false
		}
		if ahead > q.layout.size {
			q.Fail(fmt.Sprintf("available idx %d is %d ahead, in a queue of %d", q.availIdx, ahead, q.layout.size))
			return nil, false
		}
	}
	head := q.rings.availHead(q.lastAvail & (q.layout.size - 1))
	if head >= q.layout.size {
		q.Fail(fmt.Sprintf("available descriptor %d in a queue of %d", head, q.layout.size))
		return nil, false
	}
	if q.taken(head) {
		q.Fail(fmt.Sprintf("descriptor %d made available while it is in use", head))
		return nil, false
	}
	if broken := q.walk(head); broken != "" {
		q.Fail(fmt.Sprintf("descriptor %d: %s", head, broken))
		return nil, false
	}
	q.lastAvail++
	q.inFlight[head/64] |= 1 << (head % 64)
	return &q.chain, true
}

// PutBack undoes the last Next: the chain is available again, untouched. Only
// before another call of Next, and at most once.
func (q *Queue) PutBack() {
	q.lastAvail--
	q.release(q.chain.head)
}

// AddUsed gives the chain at head back to the driver, n bytes written from the
// start of its writable part (2.7.8.2). The driver sees it at the next Publish.
// Precondition: head was taken by Next and is given back once.
func (q *Queue) AddUsed(head uint16, n uint32) {
	if !q.taken(head) {
		panic(fmt.Sprintf("virtio: queue %d: descriptor %d given back, but not in use", q.index, head))
	}
	q.release(head)
	q.rings.setUsedElem(q.usedIdx&(q.layout.size-1), uint32(head), n)
	q.usedIdx++
}

// Wrote is Memory.Wrote: for what the device writes other than by Writer.Write.
func (q *Queue) Wrote(p *byte, n uint64) { q.mem.Wrote(p, n) }

// Publish shows the driver what AddUsed collected, and interrupts it if it asked
// to be (2.7.7.2).
func (q *Queue) Publish() {
	if q.usedIdx == q.published {
		return
	}
	old := q.published
	q.published = q.usedIdx
	q.rings.storeUsed(q.usedFlags, q.usedIdx)
	if q.wanted(old) {
		q.interrupt()
	}
}

// wanted decides, after idx went from old to published, whether the driver is to
// be interrupted: with EVENT_IDX exactly if idx passed used_event, else unless NO_INTERRUPT;
// and once on a new host, where nobody knows what of the old one's interrupts arrived.
func (q *Queue) wanted(old uint16) bool {
	if q.restored {
		q.restored = false
		return true
	}
	if q.features&FeatureEventIdx == 0 {
		return q.rings.availFlags()&availNoInterrupt == 0
	}
	event := q.rings.usedEvent(q.layout.size)
	return q.published-event-1 < q.published-old
}

// EnableKicks asks the driver to kick when it makes the next chain available. It
// reports true if there are chains already, for which no kick may come.
func (q *Queue) EnableKicks() (more bool) {
	if q.failed {
		return false
	}
	if q.features&FeatureEventIdx != 0 {
		q.rings.storeAvailEvent(q.layout.size, q.lastAvail)
		q.armed = true
	} else {
		q.usedFlags = 0
		q.rings.storeUsed(q.usedFlags, q.published)
	}
	return q.rings.availIdx() != q.lastAvail
}

// Pending reports whether there are chains to take, without taking any.
func (q *Queue) Pending() bool { return !q.failed && q.rings.availIdx() != q.lastAvail }

// DisableKicks says that the device looks by itself. A hint: kicks may still come.
// With EVENT_IDX the flags stay 0 (2.7.10.2): avail_event is moved behind, unless the
// driver has passed it already.
func (q *Queue) DisableKicks() {
	if q.failed {
		return
	}
	if q.features&FeatureEventIdx != 0 {
		if q.armed && q.rings.availIdx() == q.lastAvail {
			q.rings.storeAvailEvent(q.layout.size, q.lastAvail-1)
		}
		q.armed = false
		return
	}
	if q.usedFlags == usedNoNotify {
		return
	}
	q.usedFlags = usedNoNotify
	q.rings.storeUsed(q.usedFlags, q.published)
}

// Fail stops the queue until the driver resets the device, and tells the driver so
// (DEVICE_NEEDS_RESET). Chains taken before may still be given back.
func (q *Queue) Fail(reason string) {
	if q.failed {
		return
	}
	q.failed = true
	q.fail(fmt.Sprintf("queue %d: %s", q.index, reason))
}

// Failed reports whether Fail was called.
func (q *Queue) Failed() bool { return q.failed }

func (q *Queue) taken(head uint16) bool {
	return int(head/64) < len(q.inFlight) && q.inFlight[head/64]&(1<<(head%64)) != 0
}

func (q *Queue) release(head uint16) { q.inFlight[head/64] &^= 1 << (head % 64) }
