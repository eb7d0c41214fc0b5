package aio

import "golang.org/x/sys/unix"

const (
	// maxRange is the most one fallocate covers, in bytes: it holds the file's lock, and
	// other writes to the disk wait for it.
	maxRange = 256 << 20

	// maxFill is the most zeroes one write carries, in bytes.
	maxFill = 1 << 20
)

// stepSet is a set of steps.
type stepSet uint8

func (s stepSet) has(x step) bool { return s&(1<<x) != 0 }
func (s *stepSet) add(x step)     { *s |= 1 << x }

// zeroStep returns how the port's file is best made to read zeroes: by the method that was
// asked for, else by the other one, else by writing them, which always works.
//
//	unmap:      punch a hole, else zero the range, else write
//	otherwise:  zero the range, else punch a hole, else write
//
// tmpfs, for one, can't zero a range; a block device may be unable to do either. What a
// file was found unable to do is not tried again.
func (p *Port) zeroStep(unmap bool) step {
	first, second := stepZero, stepPunch
	if unmap {
		first, second = second, first
	}
	switch {
	case !p.lacks.has(first):
		return first
	case !p.lacks.has(second):
		return second
	default:
		return stepFill
	}
}

// cleared accounts for a discard's or write-zeroes' operation. A discard is a hint: a file
// that can't do it has nothing to do.
func (e *Engine) cleared(s *slot, n int64, errno unix.Errno) {
	r, p := &s.req, s.queue.port
	unable := errno == unix.EOPNOTSUPP || errno == unix.ENOSYS
	switch {
	case s.step == stepFill && errno == 0 && n == 0:
		e.finish(s, unix.EIO)
		return
	case s.step == stepFill && errno == 0:
		s.done += n
	case errno == 0:
		s.done += s.asked
	case unable && r.Op == Discard:
		s.done = r.Length
	case unable && s.step != stepFill:
		p.lacks.add(s.step)
		s.step = p.zeroStep(r.Unmap)
		e.again.push(s)
		return
	default:
		e.finish(s, errno)
		return
	}
	switch {
	case s.done < r.Length:
	case r.Durable:
		s.step = stepSync
	default:
		e.finish(s, 0)
		return
	}
	e.again.push(s)
}

// newZeroes maps what zeroes are written from: never written to, so that all of it is the
// kernel's one zero page.
func newZeroes() ([]byte, error) {
	return unix.Mmap(-1, 0, maxFill, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}
