package ram

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// Receiver is the destination's side.
type Receiver struct {
	regions []Region
	written [][]uint64 // by region and page: not all zeroes, as far as is known; a word has one stream as its writer
}

// NewReceiver receives into regions, which are all zeroes.
func NewReceiver(regions []Region) *Receiver {
	r := &Receiver{regions: regions}
	for _, g := range regions {
		r.written = append(r.written, make([]uint64, words(g.pages())))
	}
	return r
}

// Stream receives from one connection, the nr-th of so many, until a mark comes whose number it returns. The other
// streams may be received at the same time.
func (r *Receiver) Stream(c *wire.Conn, nr, of int) (mark uint32, err error) {
	in := in{Receiver: r, conn: c, nr: nr, of: of}
	for {
		h, err := c.Next()
		if err != nil {
			return 0, err
		}
		switch h.Type {
		case wire.Pages:
			if err := in.pages(h); err != nil {
				return 0, err
			}
		case wire.Mark:
			body, err := c.Payload(h)
			if err != nil {
				return 0, err
			}
			if len(body) != 4 {
				return 0, fmt.Errorf("a %v of %d bytes", h.Type, len(body))
			}
			return binary.LittleEndian.Uint32(body), nil
		default:
			return 0, fmt.Errorf("%v on a connection for memory", h.Type)
		}
	}
}

// in is one stream's state.
type in struct {
	*Receiver
	conn   *wire.Conn
	nr, of int
	table  [maxRuns * runSize]byte
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
	sum := crc32.Update(h.Begin(), wire.Castagnoli, head[:])
	sum = crc32.Update(sum, wire.Castagnoli, table)
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
		sum = crc32.Update(sum, wire.Castagnoli, memory)
		for p := range uint64(run.pages) {
			n.note(region, first+p)
		}
	}
	if left > 0 {
		return fmt.Errorf("%d bytes of content too many", left)
	}
	return h.Check(sum)
}

// place finds where a run belongs: in memory, and in chunks that are this stream's.
func (n *in) place(r run) (region int, first uint64, memory []byte, err error) {
	chunk := uint64(0)
	for i, g := range n.regions {
		start := g.GPA / PageSize
		if first := r.page - start; r.page >= start && first < g.pages() && uint64(r.pages) <= g.pages()-first {
			for c := chunk + first/chunkPages; r.pages > 0 && c <= chunk+(first+uint64(r.pages)-1)/chunkPages; c++ {
				if c%uint64(n.of) != uint64(n.nr) {
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
