package aio

import (
	"cmp"
	"fmt"
	"math"
)

// Tokens is what a limit has left: requests and bytes that may be served at once, below 0 what
// is owed. It goes with a migrated disk, else every migration would bring a new burst. A
// limit that doesn't exist has 0.
type Tokens struct {
	IOPS float64 `json:"iops"` // requests
	BPS  float64 `json:"bps"`  // bytes

	at int64 // when that was, on the engine's clock; 0: when a limit takes them over
}

// mostOwed is the most that can be owed, in requests or bytes: a request is let go while one token is
// there, and has at most 4 GiB.
const mostOwed = 1 << 32

// Validate reports tokens that no limiter can have had.
func (t Tokens) Validate() error {
	for name, level := range map[string]float64{"iops": t.IOPS, "bps": t.BPS} {
		if !(level >= -mostOwed && level <= maxRate) { // NaN is neither
			return fmt.Errorf("%v tokens of %s are not possible", level, name)
		}
	}
	return nil
}

// tokens is what the limiter has at a time.
func (l *limiter) tokens(now int64) Tokens {
	return Tokens{IOPS: l.iops.left(now), BPS: l.bps.left(now)}
}

func (b *bucket) left(now int64) float64 {
	if b.rate == 0 {
		return 0
	}
	b.due(now)
	return b.level
}

// setTokens gives the limiter what another one had, but not more than its burst.
func (l *limiter) setTokens(t Tokens, now int64) {
	at := cmp.Or(t.at, now)
	l.iops.set(t.IOPS, at)
	l.bps.set(t.BPS, at)
}

func (b *bucket) set(level float64, now int64) {
	if b.rate != 0 {
		b.level, b.at = math.Min(level, b.burst), now
	}
}

// Tokens returns what the port's own limit has left; 0 if it has none. Any goroutine but the
// engine's; it waits for the engine.
func (p *Port) Tokens() Tokens {
	if l := p.limiter(); l != nil {
		return p.engine.tokensOf(l)
	}
	return Tokens{}
}

// Left returns what its own limit had left when it was detached, for the limit of the same disk's next port, on the same
// engine: what is owed isn't forgotten because a driver resets the disk. On the engine's thread, in what Detach was given, or after that.
func (p *Port) Left() (t Tokens) {
	if l := p.limiter(); l != nil {
		t = l.tokens(p.engine.now)
		t.at = p.engine.now
	}
	return t
}

// limiter is the port's own, nil if it has none.
func (p *Port) limiter() *limiter {
	for _, l := range p.limiters {
		if !l.shared {
			return l
		}
	}
	return nil
}

// Tokens returns what the group's limit has left. As Port.Tokens.
func (g *Group) Tokens() Tokens { return g.engine.tokensOf(g.limiter) }

// SetTokens gives the group what it had on another engine, once, before its ports are there.
// What is beyond its burst is lost. The tokens must be valid. Any goroutine. It doesn't wait.
func (g *Group) SetTokens(t Tokens) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("aio: group %s: %w", g.name, err)
	}
	g.engine.mail.post(func() { g.limiter.setTokens(t, g.engine.now) })
	return nil
}

func (e *Engine) tokensOf(l *limiter) Tokens {
	t := make(chan Tokens, 1)
	if !e.mail.post(func() { t <- l.tokens(e.now) }) {
		return Tokens{}
	}
	return <-t
}
