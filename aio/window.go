package aio

import (
	"context"
	"fmt"
	"math"
)

// Cause names who bounds a port's window. Each sets its own bound and the least one holds.
type Cause uint8

const (
	CausePause   Cause = iota // the machine or the disk is paused
	CauseDrain                // a migration lets the disk's requests ebb away
	CauseLimit                // the port's own limit is reached (limit.go)
	CauseGroup                // its group's limit is reached
	CauseWorkers              // its share of the kernel's threads (capacity.go)
	causes
)

// String returns the cause's name as statistics spell it.
func (c Cause) String() string {
	return [...]string{"pause", "drain", "limit", "group", "workers"}[c]
}

// Unlimited is the bound of a cause that asks for none.
const Unlimited = math.MaxInt32

// SetWindow bounds the requests the port may have in flight, on behalf of one cause; the
// port's window is the least bound over all causes. 0 holds the port: nothing is popped
// any more, and what is in flight completes, with everything that belongs to it. Requests
// that came to the queues meanwhile, kicked or not, are found when the window opens.
//
// Any goroutine may call it, a queue on the engine's thread too. It doesn't wait: calls
// take effect in the order in which they, and calls of Idle, were made. n must not be
// negative, and the cause not one that the engine sets itself.
func (p *Port) SetWindow(c Cause, n int) {
	if n < 0 || c >= CauseLimit {
		panic(fmt.Sprintf("aio: SetWindow(%d, %d)", c, n))
	}
	p.engine.mail.post(func() { p.setBound(c, n) })
}

func (p *Port) setBound(c Cause, n int) {
	p.bounds[c] = n
	p.stats.bounds[c].Store(int64(n))
	p.window = Unlimited
	for _, bound := range p.bounds {
		p.window = min(p.window, bound)
	}
	p.engine.schedule(p)
}

// Idle waits until the port has nothing in flight, but for what failed and is kept, and its
// queues have published that. It stays so only if the window is held. On a detached port it returns at once. The error
// wraps ctx's. Any goroutine but the engine's may call it.
func (p *Port) Idle(ctx context.Context) error {
	idle := make(chan struct{})
	if !p.engine.mail.post(func() { p.waiters[idle] = struct{}{}; p.settle() }) {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		p.engine.mail.post(func() { delete(p.waiters, idle) })
		return fmt.Errorf("disk %s: %d requests still in flight: %w", p.name, p.Stats().InFlight, ctx.Err())
	}
}

// settle has the engine look, once the queues have published, whether somebody waits for
// the port to have nothing in flight.
func (p *Port) settle() {
	if p.inFlight == len(p.parked) && !p.settling && (len(p.waiters) > 0 || p.detaching) {
		p.settling = true
		p.engine.settling.push(p)
	}
}
