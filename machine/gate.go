package machine

import (
	"context"
	"sync"
	"time"
)

// gate is where vCPUs stand: between two entries into the guest, never within an
// instruction that left for user space. They run while no cause holds them.
type gate struct {
	mu      sync.Mutex
	changed sync.Cond
	held    cause // all causes there are
	outside int   // vCPUs waiting at the gate or gone
	cpus    []*vcpu
}

// cause is why vCPUs stand, a bit each. Who sets one takes it back, whatever others do.
type cause uint8

// The causes.
const (
	notStarted  cause = 1 << iota
	notArrived        // the guest comes from another host
	byUser            // Machine.Pause
	byFailure         // a disk's
	notHere           // it may run on another host
	byMigration       // it is described or saved
	byThrottle        // memory changes too fast to be migrated
	guestOver         // for good
)

func newGate() *gate {
	g := &gate{held: notStarted}
	g.changed.L = &g.mu
	return g
}

// pass is called by a vCPU that was interrupted. It waits while the vCPUs are held,
// and reports whether this one goes on.
func (g *gate) pass(c *vcpu) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.outside++
	g.changed.Broadcast()
	for g.held != 0 && g.held&guestOver == 0 {
		g.changed.Wait()
	}
	if g.held != 0 {
		return false // and stays outside
	}
	g.outside--
	// Under the lock, so that a request to stop made from now on is not undone.
	c.kvm.SetImmediateExit(false)
	return true
}

// hold asks every vCPU to come to the gate, for a cause or several.
func (g *gate) hold(c cause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held&guestOver != 0 {
		return // there may be no vCPU any more
	}
	g.held |= c
	for _, c := range g.cpus {
		c.kick()
	}
	g.changed.Broadcast()
}

// release takes causes back, but not guestOver.
func (g *gate) release(c cause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held &^= c
	g.changed.Broadcast()
}

// holds reports whether any of these causes holds the vCPUs.
func (g *gate) holds(c cause) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held&c != 0
}

// wait returns when every vCPU is outside the guest. Preconditions: the caller holds them.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.outside < len(g.cpus) {
		g.changed.Wait()
	}
}

// throttle has the vCPUs run and stand for so long each, in turn, until ctx ends.
func (g *gate) throttle(ctx context.Context, run, stand time.Duration) {
	defer g.release(byThrottle)
	for sleep(ctx, run) {
		g.hold(byThrottle)
		if !sleep(ctx, stand) {
			return
		}
		g.release(byThrottle)
	}
}

// sleep reports whether ctx has not ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
