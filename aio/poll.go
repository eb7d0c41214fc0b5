package aio

import "time"

// A guest that waits for each answer before it asks again asks within a microsecond or two of
// it. A kick costs it an exit, and waking the engine's thread costs a few times that. So when
// nothing is in flight any more, the thread looks into the queues that were answered last for
// a while, with their kicks disabled, before it sleeps.
//
// How long is found out. A sleep that ends soon would have been better spent looking: the time
// grows. One that lasts shows that it was in vain: the time is halved, and below pollLeast there
// is no looking at all. So an idle guest's engine looks a few times and then sleeps, and one whose
// disks have requests in flight never looks: they need the processor more.
const (
	pollLeast = int64(time.Microsecond)
	pollMost  = 16 * int64(time.Microsecond)
)

// expect has the queue looked at again before the thread sleeps: it was just answered.
func (q *portQueue) expect() {
	if e := q.port.engine; e.pollTime > 0 && e.inFlight == 0 {
		q.wake()
	}
}

// linger keeps an empty queue's kicks disabled, for poll to look at, and reports whether it did.
func (q *portQueue) linger() bool {
	e := q.port.engine
	if e.pollTime == 0 || e.inFlight > 0 {
		return false
	}
	if !q.lingering {
		q.lingering = true
		e.lingering = append(e.lingering, q)
	}
	return true
}

// poll looks at lingering queues, if the thread has nothing else to do, until one has something or
// the time is over. It enables the kicks of those that have nothing, and reports whether one has.
func (e *Engine) poll(idle bool) (found bool) {
	if idle && e.inFlight == 0 {
		for end := e.timer.now() + e.pollTime; !found && e.timer.now() < end; {
			for _, q := range e.lingering {
				found = found || q.Pending()
			}
		}
	}
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

// slept adapts the time spent looking to a sleep in which nothing was in flight.
func (e *Engine) slept(ns int64) {
	if ns < pollMost {
		e.pollTime = min(max(2*e.pollTime, 2*pollLeast), e.pollLimit)
	} else if e.pollTime /= 2; e.pollTime < pollLeast {
		e.pollTime = 0
	}
}
