package ram

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// Receiver is the destination's side.
type Receiver struct {
	regions []Region
	written [][]uint64      // by region and page: not all zeroes, as far as is known; a word has one stream as its writer
	marks   []atomic.Uint32 // by stream: the last
	marked  chan struct{}   // holds an element when one came since
}

// NewReceiver receives into regions, which are all zeroes, from so many streams.
func NewReceiver(regions []Region, streams int) *Receiver {
	r := &Receiver{regions: regions, marks: make([]atomic.Uint32, streams), marked: make(chan struct{}, 1)}
	for _, g := range regions {
		r.written = append(r.written, make([]uint64, words(g.pages())))
	}
	return r
}

// Stream receives from one connection, the nr-th, and answers the marks, until something is wrong with it or it
// ends: it always returns an error. The other streams may be received at the same time.
func (r *Receiver) Stream(c *wire.Conn, nr int) error {
	in := in{Receiver: r, conn: c, nr: nr}
	for {
		h, err := c.Next()
		if err != nil {
			return err
		}
		switch h.Type {
		case wire.Pages:
			err = in.pages(h)
		case wire.Mark:
			err = in.mark(h)
		default:
			err = fmt.Errorf("%v on a connection for memory", h.Type)
		}
		if err != nil {
			return err
		}
	}
}

// Complete reports whether every stream has come to this mark, and so all that was sent before is in memory.
func (r *Receiver) Complete(mark uint32) bool {
	for i := range r.marks {
		if r.marks[i].Load() != mark {
			return false
		}
	}
	return true
}

// Marked has an element when a stream has come to a mark since the last was taken: Complete may say something else then.
func (r *Receiver) Marked() <-chan struct{} { return r.marked }

// in is one stream's state.
type in struct {
	*Receiver
	conn  *wire.Conn
	nr    int
	table [maxRuns * runSize]byte
}

// mark answers the end of a pass.
func (n *in) mark(h wire.Header) error {
	body, err := n.conn.Payload(h)
	if err != nil {
		return err
	}
	next := n.marks[n.nr].Load() + 1
	if len(body) != 4 || binary.LittleEndian.Uint32(body) != next {
		return fmt.Errorf("%v %x where %d was expected", h.Type, body, next)
	}
	n.marks[n.nr].Store(next)
	select {
	case n.marked <- struct{}{}:
	default:
	}
	return n.conn.Send(wire.Mark, body)
}

// pages takes a Pages frame. Its content goes to guest memory straight away; whether it was damaged is known
// only after that, and then the migration is over.
func (n *in) pages(h wire.Header) error {
	var head [tableHead]byte
	if h.Length < tableHead {
		return fmt.Errorf("a %v of %d bytes", h.Type, h.Length)
	}
	src := n.conn.Reader()
	if _, err := io.ReadFull(src, head[:]); err != nil {
		return err
	}
	runs := int(binary.LittleEndian.Uint16(head[:]))
	table := n.table[:]
	if runs > maxRuns || h.Length < tableHead+runs*runSize {
		return fmt.Errorf("a %v of %d bytes with %d runs", h.Type, h.Length, runs)
	}
	table = table[:runs*runSize]
	if _, err := io.ReadFull(src, table); err != nil {
		return err
	}
	left := uint64(h.Length - tableHead - len(table))
	for ; len(table) > 0; table = table[runSize:] {
		run := run{binary.LittleEndian.Uint64(table), binary.LittleEndian.Uint32(table[8:]), binary.LittleEndian.Uint32(table[12:])}
		region, first, memory, err := n.place(run)
		if err != nil {
			return err
		}
		switch run.kind {
		case kindZeroes:
			n.zero(region, first, memory)
			continue
		case kindContent:
		default:
			return fmt.Errorf("pages of kind %d", run.kind)
		}
		if uint64(len(memory)) > left {
			return fmt.Errorf("%d pages at page %#x, but only %d bytes of content", run.pages, run.page, left)
		}
		left -= uint64(len(memory))
		if _, err := io.ReadFull(src, memory); err != nil {
			return err
		}
		for p := range uint64(run.pages) {
			n.note(region, first+p)
		}
	}
	if left > 0 {
		return fmt.Errorf("%d bytes of content too many", left)
	}
	return n.conn.Check(h)
}

// place finds where a run belongs: in memory, and in chunks that are this stream's.
func (n *in) place(r run) (region int, first uint64, memory []byte, err error) {
	chunk := uint64(0)
	for i, g := range n.regions {
		start := g.GPA / PageSize
		if first := r.page - start; r.page >= start && first < g.pages() && uint64(r.pages) <= g.pages()-first {
			for c := chunk + first/chunkPages; r.pages > 0 && c <= chunk+(first+uint64(r.pages)-1)/chunkPages; c++ {
				if c%uint64(len(n.marks)) != uint64(n.nr) {
					return 0, 0, nil, fmt.Errorf("page %#x came on stream %d, which it doesn't belong to", r.page, n.nr)
				}
			}
			return i, first, g.Bytes[first*PageSize:][:uint64(r.pages)*PageSize], nil
		}
		chunk += (g.pages() + chunkPages - 1) / chunkPages
	}
	return 0, 0, nil, fmt.Errorf("%d pages at page %#x, where there is no memory", r.pages, r.page)
}

// zero makes pages zero again, unless they still are.
func (n *in) zero(region int, first uint64, memory []byte) {
	for p := range uint64(len(memory)) / PageSize {
		page := first + p
		if w := &n.written[region][page/64]; *w&(1<<(page%64)) != 0 {
			*w &^= 1 << (page % 64)
			clear(memory[p*PageSize:][:PageSize])
		}
	}
}

func (n *in) note(region int, page uint64) { n.written[region][page/64] |= 1 << (page % 64) }
