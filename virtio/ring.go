package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Layout of the three parts of a split virtqueue (2.7.5, 2.7.6, 2.7.8).
//
//	descriptor table, 16-aligned     available ring, 2-aligned     used ring, 4-aligned
//	 0  addr   le64  ┐               0  flags      le16            0  flags       le16
//	 8  len    le32  │ × size        2  idx        le16            2  idx         le16
//	12  flags  le16  │               4  ring[size] le16            4  ring[size] {id le32, len le32}
//	14  next   le16  ┘                  used_event le16               avail_event le16
const (
	descSize     = 16
	usedElemSize = 8
	ringHeader   = 4

	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	availNoInterrupt = 1
	usedNoNotify     = 1
)

// layout is where the driver put a virtqueue: guest physical addresses, and the
// queue size it chose. It is all of a queue that is configured rather than run.
type layout struct {
	size              uint16
	desc, avail, used uint64
}

// rings is the host's view of a virtqueue. The views keep a margin so that every
// 16-bit field can be accessed through the aligned 32-bit word around it:
//
// Go has no 16-bit atomics, and two of the rings' fields (idx of the available
// ring above all) are the flags by which the two sides synchronise. Every access to them is one
// atomic operation on the aligned 32-bit word they lie in. The used ring is
// 4-aligned, so its first word is {flags, idx}, both the device's own: one store writes both. The available ring is
// only 2-aligned: idx shares its word with flags (address 0 mod 4) or with ring[0]
// (2 mod 4), flags with idx or with the two bytes before the ring. Reading a
// neighbour is harmless, and the word never leaves the page, so it never leaves
// RAM. avail_event ends the used ring and shares its word with two bytes that
// belong to somebody else; it is written by compare-and-swap, which leaves them as they are even if
// their owner changes them at that moment.
//
// Order: on amd64 Go's atomic loads are acquire loads, and its atomic stores, adds and
// swaps are full barriers (XCHG, LOCK), which the two StoreLoad orderings of 2.7.7
// and 2.7.10 need: used idx before used_event is read, avail_event before idx is read again.
// Go's memory model forbids the compiler to move ordinary accesses across them, and
// to read one value twice, so "copied once, then checked" holds for plain loads.
type rings struct {
	desc    []byte // size × 16
	avail   []byte // from the aligned word of the ring's start to that of its end
	availAt int    // where the ring starts in avail: 0 or 2
	used    []byte // 4 + size × 8 + 4
}

var errNotInRAM = errors.New("is not in guest RAM")

// check validates what a driver wrote before it enabled the queue (2.7).
func (l layout) check(limit uint16) error {
	switch {
	case l.size == 0 || l.size > limit || bits.OnesCount16(l.size) != 1:
		return fmt.Errorf("queue size %d is not a power of two up to %d", l.size, limit)
	case l.desc%16 != 0:
		return fmt.Errorf("descriptor table at %#x is not aligned to 16", l.desc)
	case l.avail%2 != 0:
		return fmt.Errorf("available ring at %#x is not aligned to 2", l.avail)
	case l.used%4 != 0:
		return fmt.Errorf("used ring at %#x is not aligned to 4", l.used)
	}
	return nil
}

// resolve finds the rings in guest memory.
func (l layout) resolve(mem Memory) (rings, error) {
	n := uint64(l.size)
	start := l.avail &^ 3
	end := l.avail + ringHeader + 2*n + 2 // with used_event
	r := rings{availAt: int(l.avail - start)}
	if end < l.avail {
		return r, fmt.Errorf("available ring at %#x %w", l.avail, errNotInRAM)
	}
	if r.desc = mem.Bytes(l.desc, n*descSize); r.desc == nil {
		return r, fmt.Errorf("descriptor table at %#x %w", l.desc, errNotInRAM)
	}
	if r.avail = mem.Bytes(start, (end+3)&^3-start); r.avail == nil {
		return r, fmt.Errorf("available ring at %#x %w", l.avail, errNotInRAM)
	}
	if r.used = mem.Bytes(l.used, ringHeader+n*usedElemSize+4); r.used == nil {
		return r, fmt.Errorf("used ring at %#x %w", l.used, errNotInRAM)
	}
	return r, nil
}

// usedSize is the length of a used ring of size entries in bytes, with avail_event.
func usedSize(size uint16) uint64 { return ringHeader + uint64(size)*usedElemSize + 2 }

func (r *rings) availFlags() uint16 { return load16(r.avail, r.availAt) }
func (r *rings) availIdx() uint16   { return load16(r.avail, r.availAt+2) }

// availHead reads an entry of the available ring. It was written before the idx
// that covers it, and idx was loaded with acquire.
func (r *rings) availHead(slot uint16) uint16 {
	return binary.LittleEndian.Uint16(r.avail[r.availAt+ringHeader+2*int(slot):])
}

func (r *rings) usedEvent(size uint16) uint16 {
	return load16(r.avail, r.availAt+ringHeader+2*int(size))
}

// setUsedElem fills an entry of the used ring; storeUsed makes it visible.
func (r *rings) setUsedElem(slot uint16, id, n uint32) {
	e := r.used[ringHeader+usedElemSize*int(slot):][:usedElemSize]
	binary.LittleEndian.PutUint32(e[0:], id)
	binary.LittleEndian.PutUint32(e[4:], n)
}

// storeUsed publishes flags and idx of the used ring, and is a full barrier.
func (r *rings) storeUsed(flags, idx uint16) {
	store32(r.used, 0, uint32(flags)|uint32(idx)<<16)
}

// storeAvailEvent asks for a kick at the given index, and is a full barrier.
func (r *rings) storeAvailEvent(size, event uint16) {
	swapLow16(r.used, ringHeader+usedElemSize*int(size), event)
}

// descriptor is a private copy of one entry of a descriptor table.
type descriptor struct {
	addr  uint64
	len   uint32
	flags uint16
	next  uint16
}

// readDescriptor copies entry i of a table. The copy is made once; nothing reads
// the table again for this chain.
func readDescriptor(table []byte, i uint16) descriptor {
	e := table[descSize*int(i):][:descSize]
	return descriptor{
		addr:  binary.LittleEndian.Uint64(e[0:]),
		len:   binary.LittleEndian.Uint32(e[8:]),
		flags: binary.LittleEndian.Uint16(e[12:]),
		next:  binary.LittleEndian.Uint16(e[14:]),
	}
}
