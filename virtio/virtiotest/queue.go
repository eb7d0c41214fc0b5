package virtiotest

import (
	"encoding/binary"
	"time"
)

// Descriptor flags (2.7.5).
const (
	Next     = 1
	Write    = 2
	Indirect = 4
)

const eventIdx = 1 << 29

// Buf is one buffer of a request.
type Buf struct {
	Addr  uint64
	Len   uint32
	Write bool // for the device to write
}

// Queue is the driver's side of a virtqueue.
type Queue struct {
	d               *Driver
	Index, Size     int
	Desc            uint64 // guest addresses of the rings
	Avail, UsedAddr uint64
	EventIdx        bool

	notify uint64
	vector *Vector

	availIdx uint16
	usedIdx  uint16
	kicked   uint16              // availIdx at the last Kick
	free     []uint16            // descriptors
	chains   map[uint16][]uint16 // head → its descriptors
}

func newQueue(d *Driver, i, size int, s Setup) *Queue {
	n, availSkew, usedSkew := uint64(size), uint64(0), uint64(0)
	if s.Skew {
		availSkew, usedSkew = 2, 4
	}
	q := &Queue{
		d: d, Index: i, Size: size, EventIdx: s.Features&eventIdx != 0,
		Desc:     d.Mem.Alloc(16*n, 16),
		Avail:    d.Mem.Alloc(8+2*n, 8) + availSkew,
		UsedAddr: d.Mem.Alloc(12+8*n, 8) + usedSkew,
		chains:   map[uint16][]uint16{},
	}
	for j := size - 1; j >= 0; j-- {
		q.free = append(q.free, uint16(j))
	}
	return q
}

// SetDesc writes a descriptor of the table, whatever it means.
func (q *Queue) SetDesc(i uint16, addr uint64, n uint32, flags, next uint16) {
	q.d.T.Helper()
	PutDesc(q.d.Mem.RAM(q.Desc+16*uint64(i), 16), addr, n, flags, next)
}

// PutDesc writes a descriptor.
func PutDesc(b []byte, addr uint64, n uint32, flags, next uint16) {
	binary.LittleEndian.PutUint64(b[0:], addr)
	binary.LittleEndian.PutUint32(b[8:], n)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// Table makes an indirect table of bufs in guest memory.
func (q *Queue) Table(bufs ...Buf) Buf {
	at := q.d.Mem.Alloc(16*uint64(len(bufs)), 16)
	for i, b := range bufs {
		flags := uint16(0)
		if b.Write {
			flags |= Write
		}
		if i < len(bufs)-1 {
			flags |= Next
		}
		PutDesc(q.d.Mem.RAM(at+16*uint64(i), 16), b.Addr, b.Len, flags, uint16(i+1))
	}
	return Buf{Addr: at, Len: uint32(16 * len(bufs))}
}

// Chain writes a chain of descriptors and returns its head. It is not made available.
func (q *Queue) Chain(bufs ...Buf) uint16 { q.d.T.Helper(); return q.chain(0, bufs) }

// ChainIndirect writes a chain whose last descriptor refers to a table with bufs.
func (q *Queue) ChainIndirect(direct []Buf, bufs ...Buf) uint16 {
	q.d.T.Helper()
	return q.chain(Indirect, append(append([]Buf{}, direct...), q.Table(bufs...)))
}

func (q *Queue) chain(lastFlags uint16, bufs []Buf) uint16 {
	q.d.T.Helper()
	if len(bufs) == 0 || len(bufs) > len(q.free) {
		q.d.T.Fatalf("virtiotest: chain of %d descriptors, %d are free", len(bufs), len(q.free))
	}
	n := len(q.free)
	ids := make([]uint16, len(bufs))
	for i := range bufs {
		ids[i] = q.free[n-1-i]
	}
	q.free = q.free[:n-len(bufs)]
	for i, b := range bufs {
		flags, next := uint16(0), uint16(0)
		if b.Write {
			flags |= Write
		}
		if i < len(bufs)-1 {
			flags, next = flags|Next, ids[i+1]
		} else {
			flags |= lastFlags
		}
		q.SetDesc(ids[i], b.Addr, b.Len, flags, next)
	}
	q.chains[ids[0]] = ids
	return ids[0]
}

// Push makes a chain available; nothing is kicked.
func (q *Queue) Push(head uint16) {
	q.d.T.Helper()
	binary.LittleEndian.PutUint16(q.d.Mem.RAM(q.Avail+4+2*uint64(int(q.availIdx)%q.Size), 2), head)
	q.SetAvailIdx(q.availIdx + 1)
}

// SetAvailIdx writes the available ring's idx, whatever it means.
func (q *Queue) SetAvailIdx(idx uint16) {
	q.d.T.Helper()
	q.availIdx = idx
	q.store16(q.Avail+2, idx)
}

// Add makes bufs available as one chain and returns its head.
func (q *Queue) Add(bufs ...Buf) uint16 {
	q.d.T.Helper()
	head := q.Chain(bufs...)
	q.Push(head)
	return head
}

// AddIndirect is like Add with an indirect table.
func (q *Queue) AddIndirect(bufs ...Buf) uint16 {
	q.d.T.Helper()
	head := q.ChainIndirect(nil, bufs...)
	q.Push(head)
	return head
}

// Kick stores to the notify address, wanted or not.
func (q *Queue) Kick() {
	q.d.T.Helper()
	q.kicked = q.availIdx
	q.d.Host.Store(q.notify, []byte{byte(q.Index), byte(q.Index >> 8)})
}

// WantsKick reports whether the device asked for a kick for what was made available
// since the last Kick (2.7.10).
func (q *Queue) WantsKick() bool {
	if !q.EventIdx {
		return q.UsedFlags()&1 == 0
	}
	return q.availIdx-q.AvailEvent()-1 < q.availIdx-q.kicked
}

// KickIfWanted kicks as a real driver does, and reports whether it did.
func (q *Queue) KickIfWanted() bool {
	q.d.T.Helper()
	if !q.WantsKick() {
		return false
	}
	q.Kick()
	return true
}

// NotifyAddr is the queue's notify address.
func (q *Queue) NotifyAddr() uint64 { return q.notify }

// Interrupt is the queue's MSI line.
func (q *Queue) Interrupt() *Vector { return q.vector }

// UsedFlags, UsedIdx and AvailEvent read what the device writes.
func (q *Queue) UsedFlags() uint16  { return q.load16(q.UsedAddr) }
func (q *Queue) UsedIdx() uint16    { return q.load16(q.UsedAddr + 2) }
func (q *Queue) AvailEvent() uint16 { return q.load16(q.UsedAddr + 4 + 8*uint64(q.Size)) }

// SetAvailFlags and SetUsedEvent write what the device reads.
func (q *Queue) SetAvailFlags(v uint16) { q.store16(q.Avail, v) }
func (q *Queue) SetUsedEvent(v uint16)  { q.store16(q.Avail+4+2*uint64(q.Size), v) }

// Take takes the next used chain, and frees its descriptors.
func (q *Queue) Take() (head uint16, n uint32, ok bool) {
	if q.UsedIdx() == q.usedIdx {
		return 0, 0, false
	}
	e := q.d.Mem.RAM(q.UsedAddr+4+8*uint64(int(q.usedIdx)%q.Size), 8)
	head = uint16(binary.LittleEndian.Uint32(e))
	n = binary.LittleEndian.Uint32(e[4:])
	q.usedIdx++
	q.free = append(q.free, q.chains[head]...)
	delete(q.chains, head)
	return head, n, true
}

// Wait waits for the next used chain, by interrupt if the queue has one, as Linux
// does: ask for it, look, sleep.
func (q *Queue) Wait() (head uint16, n uint32) {
	q.d.T.Helper()
	deadline := time.Now().Add(Deadline)
	for {
		if head, n, ok := q.Take(); ok {
			return head, n
		}
		if q.EventIdx {
			q.SetUsedEvent(q.usedIdx)
			if q.UsedIdx() != q.usedIdx {
				continue
			}
		}
		switch {
		case time.Now().After(deadline):
			q.d.T.Fatalf("queue %d: no used chain in time", q.Index)
		case q.vector == nil:
			time.Sleep(50 * time.Microsecond)
		case !q.vector.Wait(time.Until(deadline)) && q.UsedIdx() != q.usedIdx:
			q.d.T.Fatalf("queue %d: there are used chains, but the interrupt was lost", q.Index)
		}
	}
}

// Outstanding is the number of chains the driver made available and has not got back.
func (q *Queue) Outstanding() int { return len(q.chains) }

func (q *Queue) load16(gpa uint64) uint16 {
	return loadHalf(q.d.Mem.RAM(gpa&^3, 4), gpa&2 != 0)
}

func (q *Queue) store16(gpa uint64, v uint16) {
	storeHalf(q.d.Mem.RAM(gpa&^3, 4), gpa&2 != 0, v)
}
