package virtio

import "golang.org/x/sys/unix"

// Chain is one request as the driver made it available: the buffers the device
// may read, then those it may write. It is valid until the next call of
// Queue.Next; what has to live longer (iovecs, Writer.Byte) is taken out before.
//
// How the driver cut the bytes into buffers means nothing (2.7.4.1): a Chain is
// addressed by byte offset. A buffer outside RAM doesn't spoil the chain, only
// the accesses that touch it, so that a device can still answer.
type Chain struct {
	mem      Memory
	head     uint16
	readable []buffer
	writable []buffer
	nread    uint64
	nwrite   uint64
}

// buffer is a piece of guest memory; mem is nil if it isn't in RAM.
type buffer struct {
	mem []byte
	len uint32
}

// Head is the index of the chain's first descriptor: its name on the rings.
func (c *Chain) Head() uint16 { return c.head }

// Readable is what the driver gave the device to read.
func (c *Chain) Readable() Reader { return Reader{span{c.readable, c.nread}} }

// Writable is where the device may write.
func (c *Chain) Writable() Writer { return Writer{span{c.writable, c.nwrite}, c.mem} }

// Reader reads the device-readable bytes of a Chain. It never writes.
type Reader struct{ s span }

// Len returns the number of bytes, at most 2^32.
func (r Reader) Len() uint64 { return r.s.len }

// Read copies the len(p) bytes at off. It reports false, having copied some or
// none of them, if they are not all there or not in RAM. Every call reads guest
// memory anew: copy once, then look at the copy.
func (r Reader) Read(p []byte, off uint64) bool { return r.s.copy(p, off, nil) }

// Segments appends the host addresses of the n bytes at off to dst. It reports
// false, and returns dst unchanged, if they are not all there or not in RAM.
func (r Reader) Segments(dst []unix.Iovec, off, n uint64) ([]unix.Iovec, bool) {
	return r.s.segments(dst, off, n)
}

// Writer writes the device-writable bytes of a Chain.
type Writer struct {
	s   span
	mem Memory
}

// Len returns the number of bytes, at most 2^32.
func (w Writer) Len() uint64 { return w.s.len }

// Write copies p to the bytes at off. It reports false, having written some or
// none of them, if they are not all there or not in RAM.
func (w Writer) Write(p []byte, off uint64) bool { return w.s.copy(p, off, w.mem) }

// Segments is like Reader.Segments. Who has written there says so with Queue.Wrote.
func (w Writer) Segments(dst []unix.Iovec, off, n uint64) ([]unix.Iovec, bool) {
	return w.s.segments(dst, off, n)
}

// Byte returns the host's view of the byte at off, to be written later than the
// Chain lives (a status byte), or nil if it is not there or not in RAM. Who has
// written it says so with Queue.Wrote.
func (w Writer) Byte(off uint64) []byte {
	if off >= w.s.len {
		return nil
	}
	at := w.s.len
	for i := len(w.s.bufs) - 1; i >= 0; i-- { // the byte asked for is most often the last one
		b := w.s.bufs[i]
		at -= uint64(b.len)
		if off >= at {
			if b.mem == nil {
				return nil
			}
			return b.mem[off-at:][:1:1]
		}
	}
	return nil
}

// span is a run of bytes cut into buffers.
type span struct {
	bufs []buffer
	len  uint64
}

func (s span) holds(off, n uint64) bool { return off <= s.len && n <= s.len-off }

// copy copies the bytes at off to p, or, if they are to be written, from p; written, which
// is nil for the former, is told of that.
func (s span) copy(p []byte, off uint64, written Memory) bool {
	if !s.holds(off, uint64(len(p))) {
		return false
	}
	for _, b := range s.bufs {
		if len(p) == 0 {
			break
		}
		if off >= uint64(b.len) {
			off -= uint64(b.len)
			continue
		}
		if b.mem == nil {
			return false
		}
		var n int
		if written != nil {
			n = copy(b.mem[off:], p)
			written.Wrote(&b.mem[off], uint64(n))
		} else {
			n = copy(p, b.mem[off:])
		}
		p, off = p[n:], 0
	}
	return len(p) == 0
}

func (s span) segments(dst []unix.Iovec, off, n uint64) ([]unix.Iovec, bool) {
	if !s.holds(off, n) {
		return dst, false
	}
	out := dst
	for _, b := range s.bufs {
		if n == 0 {
			break
		}
		if off >= uint64(b.len) {
			off -= uint64(b.len)
			continue
		}
		if b.mem == nil {
			return dst, false
		}
		l := min(uint64(b.len)-off, n)
		out = append(out, unix.Iovec{Base: &b.mem[off], Len: l})
		n, off = n-l, 0
	}
	return out, true
}
