package ram

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// Sender is the source's side.
type Sender struct {
	regions []Region
	log     Log
	limit   *rate.Limiter // bytes a second; nil: none

	dirty [][]uint64 // by region: to be sent
	outs  []out      // by stream
	mark  uint32     // of the last pass
	sent  Sent
}

// Sent is what was sent so far.
type Sent struct {
	Bytes    uint64 // on the wire
	Pages    uint64 // with content
	Zeroes   uint64 // pages of zeroes
	Passes   int
	Throttle time.Duration // waited for the bandwidth cap
}

// NewSender sends on streams, each of which has one writer from now on. All pages are dirty at
// first. limit bounds the bytes a second, all streams together; nil: no bound.
func NewSender(regions []Region, log Log, streams []*wire.Conn, limit *rate.Limiter) *Sender {
	s := &Sender{regions: regions, log: log, limit: limit, outs: make([]out, len(streams))}
	for i, c := range streams {
		s.outs[i].conn = c
	}
	for _, r := range regions {
		bitmap := make([]uint64, words(r.pages()))
		for p := range bitmap {
			bitmap[p] = ^uint64(0)
		}
		if rest := r.pages() % 64; rest > 0 {
			bitmap[len(bitmap)-1] = 1<<rest - 1
		}
		s.dirty = append(s.dirty, bitmap)
	}
	return s
}

// Limit is the limiter for a bandwidth in bytes a second; 0: none.
func Limit(bandwidth uint64) *rate.Limiter {
	if bandwidth == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bandwidth), int(max(wire.MaxPages+wire.HeaderSize, bandwidth/100)))
}

// Collect takes over what was written, and returns how many bytes are to be sent.
func (s *Sender) Collect() (left uint64, err error) {
	for i := range s.dirty {
		if err := s.log.Written(i, s.dirty[i]); err != nil {
			return 0, err
		}
		left += count(s.dirty[i]) * PageSize
	}
	return left, nil
}

// Result is what one pass did.
type Result struct {
	Bytes uint64        // sent, of memory: pages of zeroes count for nothing
	Took  time.Duration // for all of it
	Left  uint64        // bytes that are dirty again

	// Wire is the bytes on the wire, and Sending the time from before the first of them until the destination had
	// them all. So Wire/Sending is at most what the link does, and less where pages of zeroes were looked for meanwhile.
	Wire    uint64
	Sending time.Duration
}

// Pass sends all that is dirty, while the guest runs. It is over when the destination has it all.
// ctx ends it early; the connections are useless then.
func (s *Sender) Pass(ctx context.Context) (Result, error) {
	begin := time.Now()
	if _, err := s.Collect(); err != nil {
		return Result{}, err
	}
	r, err := s.send(ctx, nil)
	if err != nil {
		return Result{}, err
	}
	r.Left, err = s.Collect()
	r.Took = time.Since(begin)
	return r, err
}

// Last sends the rest. onWay is called when all of it was given to the connections, and only the destination's answer
// is missing; mark is the number of the pass. The guest and its devices write nothing any more; if they
// go on nevertheless, because that took too long, what they write is on the log for the next Pass.
func (s *Sender) Last(ctx context.Context, onWay func(mark uint32)) (r Result, err error) {
	begin := time.Now()
	if _, err = s.Collect(); err != nil {
		return r, err
	}
	r, err = s.send(ctx, onWay)
	r.Took = time.Since(begin)
	return r, err
}

// Sent returns the sum over all passes. Not beside a pass.
func (s *Sender) Sent() Sent { return s.sent }

// send is a pass, the last one if there is an onWay.
func (s *Sender) send(ctx context.Context, onWay func(mark uint32)) (r Result, err error) {
	begin := time.Now()
	errs := make([]error, len(s.outs))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit, last := s.limit, onWay != nil
	if last {
		limit = nil
	}
	var written atomic.Int32 // streams
	s.mark++
	var sending sync.WaitGroup
	for i := range s.outs {
		sending.Go(func() {
			o := &s.outs[i]
			o.begin(ctx, limit)
			defer context.AfterFunc(ctx, func() { _ = o.conn.SetDeadline(time.Unix(1, 0)) })() // it need not wait for the peer
			if errs[i] = s.stream(o, i, last); errs[i] == nil {
				if last && int(written.Add(1)) == len(s.outs) {
					onWay(s.mark)
				}
				errs[i] = s.confirmed(o.conn)
			}
			if errs[i] != nil {
				cancel()
			}
		})
	}
	sending.Wait()
	r.Sending = time.Since(begin)
	for i := range s.outs {
		o := &s.outs[i]
		r.Bytes += o.pages * PageSize
		r.Wire += o.bytes
		s.sent.Pages += o.pages
		s.sent.Zeroes += o.zeroes
		s.sent.Throttle += o.waited
	}
	s.sent.Bytes += r.Wire
	s.sent.Passes++
	return r, errors.Join(errs...)
}

// stream sends the chunks of one stream, and the mark behind them.
func (s *Sender) stream(o *out, nr int, last bool) error {
	chunk := 0
	for i, r := range s.regions {
		bitmap := s.dirty[i]
		for at := 0; at < len(bitmap); at, chunk = at+chunkWords, chunk+1 {
			if chunk%len(s.outs) != nr {
				continue
			}
			if err := o.ctx.Err(); err != nil { // where there are only zeroes nobody else looks
				return err
			}
			part := bitmap[at:min(at+chunkWords, len(bitmap))]
			if count(part) == 0 {
				continue
			}
			if !last {
				if err := s.log.Clear(i, uint64(at)*64, part); err != nil {
					return err
				}
			}
			if err := o.chunk(r, uint64(at)*64, part); err != nil {
				return err
			}
			clear(part)
		}
	}
	if err := o.flush(); err != nil {
		return err
	}
	return o.conn.Send(wire.Mark, s.markBytes())
}

func (s *Sender) markBytes() []byte { return binary.LittleEndian.AppendUint32(nil, s.mark) }

// confirmed waits until the destination has all that was sent on a stream.
func (s *Sender) confirmed(c *wire.Conn) error {
	mark := s.markBytes()
	h, err := c.Next()
	if err != nil {
		return err
	}
	body, err := c.Payload(h)
	if err == nil && (h.Type != wire.Mark || !bytes.Equal(body, mark)) {
		err = fmt.Errorf("%v %x came where the answer to %v %x was expected", h.Type, body, wire.Mark, mark)
	}
	return err
}

// out gathers pages into frames for one stream.
type out struct {
	conn *wire.Conn

	// Of a pass.
	ctx                  context.Context
	limit                *rate.Limiter
	waited               time.Duration
	bytes, pages, zeroes uint64

	// Of a frame.
	runs   [maxRuns]run
	count  int
	length int // of the content
	// frame is sent as one piece. Its content, from contentAt on, is a copy: the guest goes on writing, and the checksum
	// must be right. Before it is room for the header and the table, which end there.
	frame [contentAt + maxContent]byte
}

// contentAt is a whole page, as copies to aligned addresses are faster.
const contentAt = PageSize

type run struct {
	page  uint64
	pages uint32
	kind  uint32
}

// begin prepares for a pass.
func (o *out) begin(ctx context.Context, limit *rate.Limiter) {
	o.ctx, o.limit = ctx, limit
	o.waited, o.bytes, o.pages, o.zeroes = 0, 0, 0, 0
	o.count, o.length = 0, 0
}

var zeroPage [PageSize]byte

func (o *out) chunk(r Region, first uint64, bitmap []uint64) error {
	for i, w := range bitmap {
		for ; w != 0; w &= w - 1 {
			p := first + uint64(i)*64 + uint64(bits.TrailingZeros64(w))
			if err := o.page(r.GPA/PageSize+p, r.Bytes[p*PageSize:][:PageSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *out) page(number uint64, page []byte) error {
	// What the guest writes after either look at the page is on the log again.
	kind := uint32(kindContent)
	if bytes.Equal(page, zeroPage[:]) {
		kind = kindZeroes
		o.zeroes++
	} else {
		o.length += copy(o.frame[contentAt+o.length:], page)
		o.pages++
	}
	if n := o.count; n > 0 && o.runs[n-1].kind == kind && o.runs[n-1].page+uint64(o.runs[n-1].pages) == number {
		o.runs[n-1].pages++
	} else {
		o.runs[n] = run{number, 1, kind}
		o.count++
	}
	if o.count == maxRuns || o.length == maxContent {
		return o.flush()
	}
	return nil
}

func (o *out) flush() error {
	if o.count == 0 {
		return nil
	}
	le := binary.LittleEndian
	start := contentAt - wire.HeaderSize - tableHead - o.count*runSize
	frame := o.frame[start : contentAt+o.length]
	payload := frame[wire.HeaderSize:]
	clear(payload[:tableHead])
	le.PutUint16(payload, uint16(o.count))
	for i, r := range o.runs[:o.count] {
		b := payload[tableHead+i*runSize:]
		le.PutUint64(b, r.page)
		le.PutUint32(b[8:], r.pages)
		le.PutUint32(b[12:], r.kind)
	}
	if o.limit != nil {
		begin := time.Now()
		if err := o.limit.WaitN(o.ctx, len(frame)); err != nil {
			return err
		}
		o.waited += time.Since(begin)
	}
	if err := o.ctx.Err(); err != nil {
		return err
	}
	if err := o.conn.SendFrame(wire.Pages, frame); err != nil {
		return err
	}
	o.bytes += uint64(len(frame))
	o.count, o.length = 0, 0
	return nil
}
