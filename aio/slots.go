package aio

import (
	"slices"

	"golang.org/x/sys/unix"
)

// slot is the engine's record of one request in flight. Its address stays the same while
// it is in use.
type slot struct {
	index uint32 // in its chunk until it is first used
	seq   uint32 // the request's number; 0: the slot is free
	next  *slot  // free list

	req       Request
	queue     *portQueue
	step      step  // what the kernel is doing, or is about to do, for the request
	done      int64 // bytes of Length finished so far
	asked     int64 // bytes the present operation was asked for
	tries     int   // times the kernel put the present step off
	elsewhere bool  // the present operation counts in the port's elsewhere

	errno        unix.Errno // what it failed with, while it is kept (park.go)
	mark         uint64     // Flush: the port's bytes written when it began (debt.go)
	start        int64      // when it was popped, on the engine's clock
	epoch        uint8      // of the port's grace periods
	writtenOff   bool       // doesn't count against the capacity any more, and is not in the port's ages
	older, newer *slot      // in the port's ages

	rest  []unix.Iovec  // Read, Write: tail of req.Segments that is still to be moved
	cut   uint64        // bytes by which the first of rest is shorter than it was in req.Segments
	chunk []byte        // bounce memory; nil: the guest's buffers are used directly
	one   [1]unix.Iovec // a transfer's only buffer, when it isn't one of the guest's
}

// id is what the kernel knows the request by: 32 bits of number above 24 bits of index, so
// that an answer to an earlier user of the slot can't be taken for one to this.
func (s *slot) id() uint64 { return uint64(s.seq)<<24 | uint64(s.index) }

// slotChunk is the number of slots allocated and given back together.
const slotChunk = 64

// slotTable holds the slots. There are at least as many as credits: whoever has a credit
// gets a slot. The slices in them grow to what the guests' requests need and are reused,
// last used first, so that a guest with few requests in flight touches few of them.
type slotTable struct {
	chunks []*chunk // by their slots' index / slotChunk
	limit  int      // chunks whose slots may be given out; the others go when they are empty
	open   *chunk   // of those below the limit, the ones with free slots
	spare  []*chunk // for the next resize, if it needs any
	used   int      // slots in use, whatever their chunk
	seq    uint32
}

// chunk is small, so that going through all of them is fast; its slots are elsewhere.
type chunk struct {
	slots  *[slotChunk]slot
	first  uint32 // index of the first
	free   *slot
	used   int
	next   *chunk // of slotTable.open
	isOpen bool   // on it
}

// newChunks makes what n slots take. Fresh memory costs more time than requests in flight
// should lose to a disk that is being attached, so it is done before the engine is asked.
func newChunks(n int) []*chunk {
	chunks := make([]*chunk, (n+slotChunk-1)/slotChunk)
	for i := range chunks {
		c := &chunk{slots: new([slotChunk]slot)}
		for k := range slices.Backward(c.slots[:]) {
			s := &c.slots[k]
			s.index, s.next, c.free = uint32(k), c.free, s
		}
		chunks[i] = c
	}
	return chunks
}

// resize makes room for n requests in flight, rounded up to whole chunks. Slots in use
// beyond that stay until they are released. It looks at chunks, not at slots: there can be many.
func (t *slotTable) resize(n int) {
	t.limit = (n + slotChunk - 1) / slotChunk
	for len(t.chunks) < t.limit {
		if len(t.spare) == 0 {
			t.spare = newChunks(slotChunk)
		}
		c := t.spare[0]
		t.spare = t.spare[1:]
		c.first = uint32(len(t.chunks) * slotChunk)
		t.chunks = append(t.chunks, c)
	}
	t.trim()
	t.open = nil
	for i, c := range slices.Backward(t.chunks) {
		c.isOpen = false
		if i < t.limit && c.free != nil {
			t.reopen(c)
		}
	}
}

// reopen lets slots of the chunk be given out.
func (t *slotTable) reopen(c *chunk) {
	c.isOpen = true
	c.next, t.open = t.open, c
}

// trim gives up the empty chunks at the end, beyond the limit.
func (t *slotTable) trim() {
	n := len(t.chunks)
	for n > t.limit && t.chunks[n-1].used == 0 {
		n--
	}
	clear(t.chunks[n:])
	t.chunks = t.chunks[:n]
}

// take returns a slot for a request from q.
//
// Preconditions: fewer than the resized number are in use.
func (t *slotTable) take(q *portQueue) *slot {
	c := t.open
	s := c.free
	c.free, s.next = s.next, nil
	c.used++
	if c.free == nil {
		t.open, c.next, c.isOpen = c.next, nil, false
	}
	t.used++
	if t.seq++; t.seq == 0 {
		t.seq++
	}
	s.seq, s.queue = t.seq, q
	s.index = c.first + s.index%slotChunk
	return s
}

// release takes a slot back and forgets every address of guest memory in it: once the
// memory is unmapped such an address would be a dangling pointer in Go's heap.
func (t *slotTable) release(s *slot) {
	clear(s.req.Segments)
	s.req = Request{Segments: s.req.Segments[:0]}
	s.seq, s.queue = 0, nil
	s.step, s.done, s.asked, s.tries = 0, 0, 0, 0
	s.rest, s.cut, s.chunk, s.one[0] = nil, 0, nil, unix.Iovec{}
	t.used--
	i := int(s.index / slotChunk)
	c := t.chunks[i]
	s.next, c.free = c.free, s
	c.used--
	switch {
	case i >= t.limit:
		t.trim()
	case !c.isOpen:
		t.reopen(c)
	}
}

// find returns the slot in use with an id, or nil.
func (t *slotTable) find(id uint64) *slot {
	index, seq := uint32(id&(1<<24-1)), uint32(id>>24)
	if int(index) >= len(t.chunks)*slotChunk {
		return nil
	}
	if s := &t.chunks[index/slotChunk].slots[index%slotChunk]; s.seq == seq && seq != 0 {
		return s
	}
	return nil
}
