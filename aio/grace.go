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
	long     [2]int   // of those: flush, discard, write-zeroes
	next     int64    // tick: when the epochs may change places, nanoseconds
	began    int64    // the last one at which they did
	open     bool     // the older epoch is not empty
	samples  graceLog // of finished grace periods
}

// graceTick is the time between two ticks.
const graceTick = int64(5 * time.Millisecond)

// start counts a request in and returns its epoch.
func (g *graceClock) start(long bool, now int64) uint8 {
	g.tick(now)
	g.count(g.epoch, long, 1)
	return g.epoch
}

// finish counts a request of an epoch out.
func (g *graceClock) finish(epoch uint8, long bool, now int64) {
	g.tick(now)
	g.count(epoch, long, -1)
	if g.open && epoch != g.epoch && g.inFlight[epoch] == 0 {
		g.open = false
		g.samples.add(now-g.began, g.samples.open.Swap(0))
		g.await(now)
	}
}

func (g *graceClock) count(epoch uint8, long bool, n int) {
	g.inFlight[epoch] += n
	if long {
		g.long[epoch] += n
	}
}

// tick changes the epochs' places if a tick has gone by since the last change in flight.
func (g *graceClock) tick(now int64) {
	if g.open || now < g.next {
		return
	}
	if g.inFlight[g.epoch] == 0 {
		g.samples.add(0, 0)
		g.await(now)
		return
	}
	g.began, g.open = g.next, true
	g.samples.open.Store(whoOf(g.inFlight[g.epoch], g.long[g.epoch] > 0))
	g.epoch ^= 1
}

// await has the next grace period begin at the first tick after now.
func (g *graceClock) await(now int64) {
	g.next = now - now%graceTick + graceTick
	g.samples.since.Store(g.next)
}

// graceLog keeps the latest samples for whoever asks.
type graceLog struct {
	ring  [64]graceSample
	count atomic.Uint64
	since atomic.Int64 // when the present grace period began, or, at a later time, the next will
	open  atomic.Int64 // who it waits for; 0: the epochs have not changed places yet
}

type graceSample struct {
	length atomic.Int64 // nanoseconds
	who    atomic.Int64
}

// whoOf puts what a grace period waits for into one word: 2 · requests + 1 if there is a long one.
func whoOf(requests int, long bool) int64 {
	who := int64(requests) << 1
	if long {
		who |= 1
	}
	return who
}

func (l *graceLog) add(ns, who int64) {
	n := l.count.Load()
	s := &l.ring[n%uint64(len(l.ring))]
	s.length.Store(ns)
	s.who.Store(who)
	l.count.Store(n + 1)
}

// GracePeriod is the time from a moment until every request in flight at that moment had completed.
type GracePeriod struct {
	Length   time.Duration
	InFlight int  // requests at that moment; 0 has the length 0
	Long     bool // flush, discard or write-zeroes among them
}

// Graces appends to into the grace periods that ended after the first ones, the number of which is
// after, oldest first; only the latest 64 are kept. It returns them, the number of those that have ended, for the
// next call, and the one going on, with its age as its length; zero: none is.
// Any goroutine may call it; it doesn't wait.
func (p *Port) Graces(after uint64, into []GracePeriod) (ended []GracePeriod, count uint64, open GracePeriod) {
	into, count = p.grace.samples.from(after, into)
	who := p.grace.samples.open.Load()
	if n := p.inFlightNow(); n > 0 {
		if who == 0 {
			who = whoOf(n, p.stats.long.Load() > 0)
		}
		age := p.engine.timer.now() - p.grace.samples.since.Load()
		if age > 0 {
			open = periodOf(age, who)
		}
	}
	return into, count, open
}

func periodOf(ns, who int64) GracePeriod {
	return GracePeriod{Length: time.Duration(ns), InFlight: int(who >> 1), Long: who&1 != 0}
}

// from appends the samples from number after on that are still there.
func (l *graceLog) from(after uint64, into []GracePeriod) ([]GracePeriod, uint64) {
	const kept = uint64(len(l.ring))
	count := l.count.Load()
	first, old := max(after, count-min(count, kept)), len(into)
	for n := first; n < count; n++ {
		s := &l.ring[n%kept]
		into = append(into, periodOf(s.length.Load(), s.who.Load()))
	}
	// What the engine has written over meanwhile, or is about to, may be half of one and half of another.
	if torn := l.count.Load() + 1; torn > first+kept {
		lost := min(torn-first-kept, uint64(len(into)-old))
		into = append(into[:old], into[old+int(lost):]...)
	}
	return into, count
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
		samples[i] = l.ring[i].length.Load()
	}
	g.Last = time.Duration(l.ring[(g.Count-1)%uint64(len(l.ring))].length.Load())
	slices.Sort(samples)
	g.P95 = time.Duration(samples[(len(samples)*95+99)/100-1])
	return g
}
