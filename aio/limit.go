package aio

import (
	"fmt"
	"math"
)

// Rate is a limit per second with a burst. The zero value is no limit.
type Rate struct {
	PerSecond int64 // requests or bytes; 0: no limit
	Burst     int64 // how many may come at once after a pause; 0: what a tenth of a second brings
}

// Limits bound what a port, or a group of them, is served. Reads, writes, discards and
// write-zeroes count as one request each, reads and writes for their bytes; a flush counts for
// nothing, but waits like the others while a limit is reached.
type Limits struct {
	IOPS Rate // requests
	BPS  Rate // bytes
}

// maxRate is the most a Rate may ask for, in requests or bytes per second, and as a burst.
const maxRate = 1 << 50

func (l Limits) none() bool { return l.IOPS.PerSecond == 0 && l.BPS.PerSecond == 0 }

// Validate reports what is wrong with the limits, in words for the user who gave them.
func (l Limits) Validate() error {
	for _, r := range []struct {
		name string
		Rate
	}{{"iops", l.IOPS}, {"bps", l.BPS}} {
		switch {
		case r.PerSecond < 0 || r.PerSecond > maxRate:
			return fmt.Errorf("%s=%d is not possible, use 1 to %d", r.name, r.PerSecond, int64(maxRate))
		case r.Burst < 0 || r.Burst > maxRate:
			return fmt.Errorf("%s has a burst of %d, use 1 to %d", r.name, r.Burst, int64(maxRate))
		case r.Burst > 0 && r.PerSecond == 0:
			return fmt.Errorf("%s has a burst but no rate", r.name)
		}
	}
	return nil
}

// bucket is a token bucket of requests or bytes. How many bytes a request has is known only
// when it has been popped, and then it is too late to wait. So a request may be popped while
// one token is there, and what it costs beyond that is owed: the next one waits until the debt is
// paid. Over time exactly the rate is served.
type bucket struct {
	rate  float64 // tokens per nanosecond; 0: no limit
	burst float64
	level float64 // ≤ burst; below 0: owed
	at    int64   // when level was right
}

func newBucket(r Rate, now int64) bucket {
	b := bucket{rate: float64(r.PerSecond) / 1e9, burst: float64(r.Burst), at: now}
	if b.burst == 0 {
		b.burst = math.Max(float64(r.PerSecond)/10, 1)
	}
	b.level = b.burst
	return b
}

// due returns when there is a token: now or earlier if there is one.
func (b *bucket) due(now int64) int64 {
	const token = 1 - 1e-6 // but for rounding
	if b.rate == 0 {
		return now
	}
	b.level = math.Min(b.level+float64(now-b.at)*b.rate, b.burst)
	b.at = now
	if b.level >= token {
		return now
	}
	return now + int64(math.Ceil((1-b.level)/b.rate))
}

func (b *bucket) take(n int64) {
	if b.rate != 0 {
		b.level -= float64(n)
	}
}

// limiter applies Limits to the ports that share it. It belongs to the engine's thread.
type limiter struct {
	engine  *Engine
	cause   Cause
	iops    bucket
	bps     bucket
	waiting fifo[*Port] // held until something is left, the longest waiting first
	timed   bool        // in the engine's list of limiters that wait for a time
	shared  bool        // by several ports: then each takes one request a turn
}

// pass reports whether the port may pop a request. If not, its window is held on behalf of
// the limiter's cause until it may.
func (l *limiter) pass(p *Port) bool {
	now := l.engine.now
	due := max(l.iops.due(now), l.bps.due(now))
	if due <= now {
		return true
	}
	if !p.limited[l.cause-CauseLimit] {
		p.limited[l.cause-CauseLimit] = true
		l.waiting.push(p)
		p.setBound(l.cause, 0)
	}
	l.wait(due)
	return false
}

func (l *limiter) wait(due int64) {
	if !l.timed {
		l.timed = true
		l.engine.timed = append(l.engine.timed, l)
	}
	l.engine.timer.wakeAt(due)
}

// take charges a popped request.
func (l *limiter) take(r *Request) {
	if r.Op == Flush {
		return
	}
	l.iops.take(1)
	if r.Op <= Write {
		l.bps.take(r.Length)
	}
}

// expire lets those go who wait for a time that has come, and waits on for the others.
func (e *Engine) expire() {
	e.timer.fired()
	still := e.timed[:0]
	for _, l := range e.timed {
		due := max(l.iops.due(e.now), l.bps.due(e.now))
		if due > e.now {
			still = append(still, l)
			e.timer.wakeAt(due)
			continue
		}
		l.timed = false
		for l.waiting.len() > 0 {
			p := l.waiting.pop()
			p.limited[l.cause-CauseLimit] = false
			p.setBound(l.cause, Unlimited)
		}
	}
	clear(e.timed[len(still):])
	e.timed = still
}

// Group is a limit that several ports share. They are served in rotation, a request each.
type Group struct {
	engine  *Engine
	name    string
	limits  Limits
	limiter *limiter // the engine's thread's
}

// NewGroup makes a group on the engine; ports join it with PortConfig.Group. The limits must
// be valid. Any goroutine may call it.
func (e *Engine) NewGroup(name string, l Limits) (*Group, error) {
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("aio: group %s: %w", name, err)
	}
	return &Group{engine: e, name: name, limits: l, limiter: newLimiter(e, CauseGroup, l)}, nil
}

// Name returns what the group is called.
func (g *Group) Name() string { return g.name }

// Limits returns what its ports share.
func (g *Group) Limits() Limits { return g.limits }

func newLimiter(e *Engine, c Cause, l Limits) *limiter {
	now := e.timer.now()
	return &limiter{engine: e, cause: c, iops: newBucket(l.IOPS, now), bps: newBucket(l.BPS, now), shared: c == CauseGroup}
}
