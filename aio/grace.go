package aio

import (
	"slices"
	"sync/atomic"
	"time"
)

// A grace period begins at a moment and ends when every request that was in flight at that
// moment has completed, as in SRCU (kernel Documentation/RCU/checklist.rst). Its length is
// what a drain begun at that moment would have taken: with request sizes, queueing, limits
// and tails of the disk in it, and without a model of any of them.
//
// Requests belong to one of two epochs. At a tick, if nothing of the older epoch is left,
// the epochs change places: new requests join the other one, and the time until the old one
// is empty is measured. Ticks are at fixed times, so that the samples say what a drain at any
// time meets; but nothing wakes the engine for them. What is in flight changes only when a
// request starts or ends, so that is soon enough to see what was in flight at a tick since.
// It costs the same whatever is in flight.
type graceClock struct {
	epoch    uint8    // of new requests: 0 or 1
	inFlight [2]int   // by epoch
	next     int64    // tick: when the epochs may change places, nanoseconds
	began    int64    // the last one at which they did
	open     bool     // the older epoch is not empty
	samples  graceLog // of finished grace periods
}

// graceTick is the time between two ticks.
const graceTick = int64(5 * time.Millisecond)

// start counts a request in and returns its epoch.
func (g *graceClock) start(now int64) uint8 {
	g.tick(now)
	g.inFlight[g.epoch]++
	return g.epoch
}

// finish counts a request of an epoch out.
func (g *graceClock) finish(epoch uint8, now int64) {
	g.tick(now)
	g.inFlight[epoch]--
	if g.open && epoch != g.epoch && g.inFlight[epoch] == 0 {
		g.open = false
		g.samples.add(now - g.began)
		g.await(now)
	}
}

// tick changes the epochs' places if a tick has gone by since the last change in flight.
func (g *graceClock) tick(now int64) {
	if g.open || now < g.next {
		return
	}
	if g.inFlight[g.epoch] == 0 {
		g.samples.add(0)
		g.await(now)
		return
	}
	g.began, g.open = g.next, true
	g.epoch ^= 1
}

// await has the next grace period begin at the first tick after now.
func (g *graceClock) await(now int64) {
	g.next = now - now%graceTick + graceTick
	g.samples.since.Store(g.next)
}

// graceLog keeps the latest samples for whoever asks.
type graceLog struct {
	ring  [64]atomic.Int64 // nanoseconds
	count atomic.Uint64
	since atomic.Int64 // when the present grace period began, or, at a later time, the next will
}

func (l *graceLog) add(ns int64) {
	n := l.count.Load()
	l.ring[n%uint64(len(l.ring))].Store(ns)
	l.count.Store(n + 1)
}

// Grace summarises the latest grace periods of a port, 64 at most: the time from a moment
// until every request in flight at that moment had completed.
type Grace struct {
	Count uint64        // grace periods so far
	Last  time.Duration // length of the latest
	P95   time.Duration // 95th percentile of the latest 64
	Open  time.Duration // age of the one going on; 0: none is
}

// read summarises the log of a port that has requests in flight or not.
func (l *graceLog) read(now int64, inFlight bool) Grace {
	g := Grace{Count: l.count.Load()}
	if inFlight {
		g.Open = time.Duration(max(now-l.since.Load(), 0))
	}
	n := min(g.Count, uint64(len(l.ring)))
	if n == 0 {
		return g
	}
	samples := make([]int64, n)
	for i := range samples {
		samples[i] = l.ring[i].Load()
	}
	g.Last = time.Duration(l.ring[(g.Count-1)%uint64(len(l.ring))].Load())
	slices.Sort(samples)
	g.P95 = time.Duration(samples[(len(samples)*95+99)/100-1])
	return g
}
