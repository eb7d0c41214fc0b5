package aio

import "golang.org/x/sys/unix"

// slot is the engine's record of one request in flight. Its address stays the same while
// it is in use.
type slot struct {
	index uint32
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
	start        int64      // when it was popped, on the engine's clock
	epoch        uint8      // of the port's grace periods
	writtenOff   bool       // doesn't count against the capacity any more, and is not in the port's ages
	older, newer *slot      // in the port's ages

	rest  []unix.Iovec  // Read, Write: tail of req.Segments that is still to be moved
	chunk []byte        // bounce memory; nil: the guest's buffers are used directly
	one   [1]unix.Iovec // a transfer's only buffer, when it isn't one of the guest's
}

// id is what the kernel knows the request by: 32 bits of number above 24 bits of index, so
// that an answer to an earlier user of the slot can't be taken for one to this.
func (s *slot) id() uint64 { return uint64(s.seq)<<24 | uint64(s.index) }

const slotChunk = 64 // slots allocated and given back together

// slotTable holds the slots. There are at least as many as credits: whoever has a credit
// gets a slot. The slices in them grow to what the guests' requests need and are reused,
// last used first, so that a guest with few requests in flight touches few of them.
type slotTable struct {
	chunks []*[slotChunk]slot
	limit  int   // slots with a lower index may be given out
	free   *slot // of those
	used   int   // slots in use, whatever their index
	beyond int   // of those, index ≥ limit
	seq    uint32
}

// resize makes room for n requests in flight, rounded up to whole chunks. Slots in use
// beyond that stay until they are released.
func (t *slotTable) resize(n int) {
	for len(t.chunks)*slotChunk < n {
		chunk := new([slotChunk]slot)
		for i := range chunk {
			chunk[i].index = uint32(len(t.chunks)*slotChunk + i)
		}
		t.chunks = append(t.chunks, chunk)
	}
	t.limit = (n + slotChunk - 1) / slotChunk * slotChunk
	t.free, t.beyond = nil, 0
	for i := len(t.chunks)*slotChunk - 1; i >= 0; i-- {
		switch s := t.at(uint32(i)); {
		case s.seq != 0 && i >= t.limit:
			t.beyond++
		case s.seq == 0 && i < t.limit:
			s.next, t.free = t.free, s
		}
	}
	t.trim()
}

// trim gives up the chunks beyond the limit once none of their slots is in use.
func (t *slotTable) trim() {
	if n := t.limit / slotChunk; t.beyond == 0 && n < len(t.chunks) {
		clear(t.chunks[n:])
		t.chunks = t.chunks[:n]
	}
}

func (t *slotTable) at(index uint32) *slot {
	return &t.chunks[index/slotChunk][index%slotChunk]
}

// take returns a slot for a request from q.
//
// Preconditions: fewer than the resized number are in use.
func (t *slotTable) take(q *portQueue) *slot {
	s := t.free
	t.free, s.next = s.next, nil
	t.used++
	if t.seq++; t.seq == 0 {
		t.seq++
	}
	s.seq, s.queue = t.seq, q
	return s
}

// release takes a slot back and forgets every address of guest memory in it: once the
// memory is unmapped such an address would be a dangling pointer in Go's heap.
func (t *slotTable) release(s *slot) {
	clear(s.req.Segments)
	s.req = Request{Segments: s.req.Segments[:0]}
	s.seq, s.queue = 0, nil
	s.step, s.done, s.asked, s.tries = 0, 0, 0, 0
	s.rest, s.chunk, s.one[0] = nil, nil, unix.Iovec{}
	t.used--
	if int(s.index) < t.limit {
		s.next, t.free = t.free, s
		return
	}
	t.beyond--
	t.trim()
}

// find returns the slot in use with an id, or nil.
func (t *slotTable) find(id uint64) *slot {
	index, seq := uint32(id&(1<<24-1)), uint32(id>>24)
	if int(index) >= len(t.chunks)*slotChunk {
		return nil
	}
	if s := t.at(index); s.seq == seq && seq != 0 {
		return s
	}
	return nil
}
