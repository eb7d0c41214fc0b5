package aio

import "golang.org/x/sys/unix"

// step is what the kernel does for a request at one time. Most requests take a single
// operation of a single step; but a transfer may come back short, zeroing may need another
// method, and what must be durable may need an fdatasync at the end.
//
//	Read, Write   stepMove…
//	Flush         stepSync
//	Discard       stepPunch…                         [stepSync if durable]
//	WriteZeroes   stepPunch… | stepZero… | stepFill…  [stepSync if durable]
//
// "…" repeats until the whole length is done. All further operations go through
// Engine.again and precede new requests; they ask for no credit and no window, having both.
type step uint8

const (
	stepNone  step = iota // nothing to do
	stepMove              // read or write
	stepSync              // fdatasync
	stepPunch             // deallocate
	stepZero              // zero, allocated or not
	stepFill              // write zeroes
)

// maxTries is how often the kernel may put a step off (putOff) without progress.
// Each retry runs on a kernel thread that may block, so they don't spin.
const maxTries = 16

// prepare checks a popped request and returns its first step, or stepNone if there is
// nothing to be done. An error is EINVAL: the request makes no sense.
func (e *Engine) prepare(s *slot) (step, unix.Errno) {
	r, p := &s.req, s.queue.port
	if r.Op > WriteZeroes || r.Offset < 0 || r.Length < 0 || r.Offset+r.Length < r.Offset {
		return stepNone, unix.EINVAL
	}
	switch {
	case r.Op == Flush:
		return stepSync, 0
	case r.Op <= Write:
		length, aligned := survey(r.Segments, p.align)
		if length != uint64(r.Length) {
			return stepNone, unix.EINVAL
		}
		if length == 0 {
			return stepNone, 0
		}
		s.rest = r.Segments
		if !aligned {
			s.chunk = p.bounce.get()
		}
		return stepMove, 0
	case r.Length == 0:
		return stepNone, 0
	case r.Op == Discard:
		return stepPunch, 0
	default:
		return p.zeroStep(r.Unmap), 0
	}
}

// issue submits the present step's operation for what is left of the request.
//
// Preconditions: the backend has room.
func (e *Engine) issue(s *slot) {
	r := &s.req
	op := &e.op
	*op = operation{
		id:     s.id(),
		fd:     s.queue.port.fd,
		offset: r.Offset + s.done,
		length: r.Length - s.done,
		async:  s.tries > 0,
	}
	switch s.step {
	case stepMove:
		op.code = opRead
		if r.Op == Write {
			op.code, op.dsync = opWrite, r.Durable
		}
		op.iov = s.buffers()
	case stepSync:
		op.code = opSync
	case stepPunch:
		op.code, op.mode = opAllocate, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE
		op.length = min(op.length, maxRange)
	case stepZero:
		op.code, op.mode = opAllocate, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE
		op.length = min(op.length, maxRange)
	case stepFill:
		op.code = opWrite
		s.one[0] = iovec(e.zeroes[:min(op.length, maxFill)])
		op.iov = s.one[:]
	}
	s.asked = op.length
	s.queue.port.hand(s, op)
	e.backend.submit(op)
	e.queued++
}

// buffers returns where the next operation moves its data: the rest of the guest's
// buffers, or a bounce chunk, for writes filled from them.
func (s *slot) buffers() []unix.Iovec {
	if s.chunk == nil {
		return s.rest[:min(len(s.rest), maxIovecs)]
	}
	n := min(int64(len(s.chunk)), s.req.Length-s.done)
	if s.req.Op == Write {
		gather(s.chunk[:n], s.rest)
	}
	s.one[0] = iovec(s.chunk[:n])
	return s.one[:]
}

// completed carries on with a request whose operation has ended.
func (e *Engine) completed(s *slot, result int32) {
	if s.elsewhere {
		s.elsewhere = false
		s.queue.port.elsewhere--
	}
	n, errno := int64(result), unix.Errno(0)
	if result < 0 {
		n, errno = 0, unix.Errno(-result)
	}
	if putOff(errno) && s.tries < maxTries {
		s.tries++
		e.again.push(s)
		return
	}
	s.tries = 0
	switch s.step {
	case stepMove:
		if s.req.Op == Write && s.req.Durable && writesLost(errno) { // perhaps another's, which was told that all is well
			s.queue.port.lose(errno)
		}
		e.moved(s, n, errno)
	case stepSync:
		if errno != 0 && !putOff(errno) {
			s.queue.port.lose(errno)
		}
		e.finish(s, errno)
	default:
		e.cleared(s, n, errno)
	}
}

// putOff reports whether the kernel did nothing, for now. ECANCELED: io_uring had no thread for what would block, and could not start one.
func putOff(errno unix.Errno) bool {
	return errno == unix.EAGAIN || errno == unix.EINTR || errno == unix.ECANCELED
}

// writesLost reports whether a write that was to be stable may have failed because cached pages could not be written, of which
// the kernel tells one that waits for them, and not always the one that wrote them. A device has many ways to say that.
// Of a full disk it isn't known: mostly a write finds that before anything is cached, and it is for waiting until there is room.
func writesLost(errno unix.Errno) bool {
	switch errno {
	case 0, unix.EAGAIN, unix.EINTR, unix.ECANCELED, unix.EINVAL, unix.EFBIG, unix.ENOMEM, unix.EBADF, unix.EOPNOTSUPP, unix.EPERM, unix.ENOSPC, unix.EDQUOT:
		return false
	}
	return true
}

// lose tells who wants to know that what was written may be lost.
func (p *Port) lose(errno unix.Errno) {
	if p.syncFailed != nil {
		p.syncFailed(errno)
	}
}

// advance takes n bytes off what is left to be moved.
//
// Preconditions: at least n bytes are left.
func (s *slot) advance(n int64) {
	n += int64(s.cut)
	s.uncut()
	s.rest, s.cut = advance(s.rest, n)
}

// uncut has req.Segments be what the queue made of them: an operation that came back short
// in the middle of one leaves it cut.
func (s *slot) uncut() {
	if s.cut > 0 {
		grow(&s.rest[0], s.cut)
		s.cut = 0
	}
}

// moved accounts for n bytes read or written. None at all means that the file ends here
// (it was cut short under us) or takes no more.
func (e *Engine) moved(s *slot, n int64, errno unix.Errno) {
	if errno == 0 && n == 0 {
		errno = unix.EIO
	}
	if errno != 0 {
		e.finish(s, errno)
		return
	}
	if s.chunk != nil && s.req.Op == Read {
		scatter(s.rest, s.chunk[:n])
	}
	s.done += n
	s.advance(n)
	if s.done == s.req.Length {
		e.finish(s, 0)
		return
	}
	e.again.push(s)
}
