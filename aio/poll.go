package aio

import "time"

// A guest that waits for each answer before it asks again asks within a microsecond or two of
// it. A kick costs it an exit, and waking the engine's thread costs a few times that. So when
// nothing is in flight any more, the thread looks into the queues that were answered last for
// a while, with their kicks disabled, before it sleeps. In the same way it looks for the
// answers of disks while no more than pollInFlight requests are in flight, unless another
// thread carries them out: that needs the processor more.
//
// How long is found out, for guests and for disks apart. A sleep that ends soon would have been
// better spent looking: the time grows. One that lasts shows that it was in vain: the time is
// halved, and below pollLeast there is no looking at all. So an idle guest's engine looks a few
// times and then sleeps, and so does one whose disk is slow.
const (
	pollLeast = int64(time.Microsecond)
	pollGuest = 16 * int64(time.Microsecond) // most
	pollDisk  = 256 * int64(time.Microsecond)

	// pollInFlight is how many requests may be in flight. With more the next answer or the next
	// request comes about as soon as a sleep could end.
	pollInFlight = 64
)

// lookout is how long to look before sleeping, in nanoseconds; the zero value never looks.
type lookout struct{ time, most int64 }

// slept adapts it to a sleep.
func (l *lookout) slept(ns int64) {
	if ns < l.most {
		l.time = min(max(2*l.time, 2*pollLeast), l.most)
	} else if l.time /= 2; l.time < pollLeast {
		l.time = 0
	}
}

// lookout returns how long to look for what comes next, nil if it isn't worth it at all.
func (e *Engine) lookout() *lookout {
	switch {
	case e.inFlight == 0:
		return &e.forGuest
	case e.inFlight <= pollInFlight && e.backend.unaided():
		return &e.forDisk
	}
	return nil
}

// looks reports whether the thread is going to look before it sleeps, as things are now.
func (e *Engine) looks() bool {
	l := e.lookout()
	return l != nil && l.time > 0
}

// expect has the queue looked at again before the thread sleeps: it was just answered.
func (q *portQueue) expect() {
	if q.port.engine.looks() {
		q.wake()
	}
}

// linger keeps an empty queue's kicks disabled while the thread looks, and reports whether it does.
func (q *portQueue) linger() bool {
	e := q.port.engine
	if !e.looks() {
		return false
	}
	if !q.lingering {
		q.lingering = true
		e.lingering = append(e.lingering, q)
	}
	return true
}

// await hands everything to the kernel and, if block is set, waits until something happens.
func (e *Engine) await(block bool) {
	if block && e.looks() && (e.inFlight > 0 || len(e.lingering) > 0) {
		if e.inFlight > 0 {
			e.enter(false) // or the kernel wouldn't know of them; that may need other threads
		}
		if l := e.lookout(); l != nil && e.look(l.time) {
			block = false
		}
		if e.inFlight > 0 && e.backend.pending() {
			e.endLingering()
			e.now = e.timer.now()
			return
		}
	}
	if e.endLingering() {
		block = false
	}
	l := e.lookout()
	begin := e.timer.now()
	e.enter(block)
	e.now = e.timer.now()
	if block && l != nil {
		l.slept(e.now - begin)
	}
}

// look looks for something to do, for a time in nanoseconds, and reports whether there is.
func (e *Engine) look(time int64) bool {
	for end := e.timer.now() + time; ; {
		if e.backend.pending() {
			return true
		}
		for _, q := range e.lingering {
			if q.Pending() {
				return true
			}
		}
		if e.timer.now() >= end {
			return false
		}
	}
}

// endLingering enables the kicks of the queues that have nothing, and reports whether one has.
func (e *Engine) endLingering() (found bool) {
	for i, q := range e.lingering {
		q.lingering = false
		e.lingering[i] = nil
		switch {
		case q.ready || q.port.detaching:
		case q.Pending(), q.EnableKicks():
			found = true
			q.wake()
		}
	}
	e.lingering = e.lingering[:0]
	return found
}
