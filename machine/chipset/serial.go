package chipset

import (
	"sync"
)

// Registers of a 16550A by offset (National Semiconductor PC16550D, section 8).
const (
	regData    = 0 // receive buffer, transmit holding; divisor low with DLAB
	regIER     = 1 // interrupt enable; divisor high with DLAB
	regIIR     = 2 // interrupt identification; FIFO control on write
	regLCR     = 3
	regMCR     = 4
	regLSR     = 5
	regMSR     = 6
	regScratch = 7

	ierReceive  = 1 << 0
	ierTransmit = 1 << 1
	ierLine     = 1 << 2

	iirNone     = 0x01
	iirTransmit = 0x02
	iirReceive  = 0x04
	iirLine     = 0x06
	iirFIFO     = 0xc0

	fcrEnable       = 1 << 0
	fcrClearReceive = 1 << 1

	lcrDLAB = 1 << 7

	mcrDTR, mcrRTS, mcrOut1, mcrOut2, mcrLoop = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4

	lsrReady    = 1 << 0
	lsrOverrun  = 1 << 1
	lsrEmpty    = 1 << 5 // transmit holding register
	lsrIdle     = 1 << 6 // and the shift register
	msrCTS      = 1 << 4
	msrDSR      = 1 << 5
	msrRI       = 1 << 6
	msrDCD      = 1 << 7
	fifoSize    = 16
	outputLimit = 64 << 10 // bytes
)

// Serial is a 16550A UART. What the guest sends is collected for a reader of
// Output; what Input gets, the guest receives. When nobody takes the output the
// transmitter stays busy, as on a line with flow control: a vCPU never waits for
// a console.
type Serial struct {
	irq Line

	mu       sync.Mutex
	output   sync.Cond // sent is no longer empty, or closed
	input    sync.Cond // received has room, the guest listens, or closed
	ier      byte
	fifo     bool
	lcr, mcr byte
	scratch  byte
	divisor  [2]byte
	received []byte // at most fifoSize
	overrun  bool
	sent     []byte // not yet taken by Output, at most outputLimit
	thre     bool   // transmit interrupt pending: the holding register became empty
	high     bool   // state of the interrupt line
	held     bool   // by Hold
	closed   bool
}

// NewSerial returns an idle port whose interrupts go to irq.
func NewSerial(irq Line) *Serial {
	s := &Serial{irq: irq, lcr: 3 /* 8 bits */, divisor: [2]byte{12} /* 9600 */}
	s.output.L, s.input.L = &s.mu, &s.mu
	return s
}

// Output waits for bytes the guest has sent and takes them, appending to buf[:0].
// It returns nothing once Close was called and all bytes are taken.
func (s *Serial) Output(buf []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.sent) == 0 && !s.closed {
		s.output.Wait()
	}
	buf = append(buf[:0], s.sent...)
	wasFull := !s.room()
	s.sent = s.sent[:0]
	if wasFull {
		s.thre = true
	}
	s.update()
	return buf
}

// Input feeds bytes to the guest. It waits until the guest's driver listens, which
// it says by enabling the receive interrupt: what came earlier would be lost when
// the driver resets the port. It returns when the receive FIFO has taken all, or
// ok false and how many it took when the port was closed.
func (s *Serial) Input(p []byte) (n int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n < len(p) && !s.closed {
		depth := 1
		if s.fifo {
			depth = fifoSize
		}
		k := min(depth-len(s.received), len(p)-n)
		if k <= 0 || s.ier&ierReceive == 0 || s.held {
			s.input.Wait()
			continue
		}
		s.received = append(s.received, p[n:n+k]...)
		n += k
		s.update()
	}
	return n, n == len(p)
}

// Close ends Input and, when everything is taken, Output. The interrupt line is
// left alone from then on: its other end may be gone before the output is taken.
func (s *Serial) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.output.Broadcast()
	s.input.Broadcast()
}

func (s *Serial) room() bool { return len(s.sent) < outputLimit }

// Read implements bus.Handler.
func (s *Serial) Read(off uint64, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(p)
	p[0] = s.read(off)
	s.update()
}

func (s *Serial) read(off uint64) byte {
	dlab := s.lcr&lcrDLAB != 0
	switch {
	case off <= regIER && dlab:
		return s.divisor[off]
	case off == regData:
		if len(s.received) == 0 {
			return 0
		}
		b := s.received[0]
		s.received = s.received[:copy(s.received, s.received[1:])]
		s.input.Broadcast()
		return b
	case off == regIER:
		return s.ier
	case off == regIIR:
		id := s.pending()
		if id == iirTransmit {
			s.thre = false // reading it acknowledges this one
		}
		if s.fifo {
			id |= iirFIFO
		}
		return id
	case off == regLCR:
		return s.lcr
	case off == regMCR:
		return s.mcr
	case off == regLSR:
		v := byte(0)
		if len(s.received) > 0 {
			v |= lsrReady
		}
		if s.overrun {
			v |= lsrOverrun
			s.overrun = false
		}
		if s.room() {
			v |= lsrEmpty | lsrIdle
		}
		return v
	case off == regMSR:
		if s.mcr&mcrLoop == 0 {
			return msrCTS | msrDSR | msrDCD
		}
		v := byte(0)
		for _, wire := range [...]struct{ out, in byte }{
			{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOut1, msrRI}, {mcrOut2, msrDCD},
		} {
			if s.mcr&wire.out != 0 {
				v |= wire.in
			}
		}
		return v
	default:
		return s.scratch
	}
}

// Write implements bus.Handler.
func (s *Serial) Write(off uint64, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(off, p[0])
	s.update()
}

func (s *Serial) write(off uint64, v byte) {
	dlab := s.lcr&lcrDLAB != 0
	switch {
	case off <= regIER && dlab:
		s.divisor[off] = v
	case off == regData:
		s.transmit(v)
	case off == regIER:
		if v&^s.ier&ierTransmit != 0 && s.room() {
			s.thre = true // enabling it with an empty register raises it
		}
		s.ier = v & 0x0f
		s.input.Broadcast()
	case off == regIIR:
		s.fifo = v&fcrEnable != 0
		if v&fcrClearReceive != 0 {
			s.received = s.received[:0]
			s.input.Broadcast()
		}
	case off == regLCR:
		s.lcr = v
	case off == regMCR:
		s.mcr = v & 0x1f
	case off == regScratch:
		s.scratch = v
	}
}

func (s *Serial) transmit(v byte) {
	switch {
	case s.mcr&mcrLoop != 0:
		if len(s.received) < fifoSize {
			s.received = append(s.received, v)
		} else {
			s.overrun = true
		}
		s.thre = true
	case s.room():
		s.sent = append(s.sent, v)
		s.thre = s.room()
		if len(s.sent) == 1 {
			s.output.Signal()
		}
	}
	// Else the guest wrote although the transmitter was busy: the byte is lost.
}

// pending returns the interrupt of highest priority, as in the IIR.
func (s *Serial) pending() byte {
	switch {
	case s.ier&ierLine != 0 && s.overrun:
		return iirLine
	case s.ier&ierReceive != 0 && len(s.received) > 0:
		return iirReceive
	case s.ier&ierTransmit != 0 && s.thre:
		return iirTransmit
	default:
		return iirNone
	}
}

// update drives the interrupt line. OUT2 gates it, as on every PC.
func (s *Serial) update() {
	high := s.pending() != iirNone && s.mcr&mcrOut2 != 0 && s.mcr&mcrLoop == 0
	if high != s.high && !s.closed {
		s.high = high
		s.irq(high)
	}
}
