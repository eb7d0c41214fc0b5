package machine

import "sync"

// gate is where vCPUs stop: between two entries into the guest, never within an
// instruction that left for user space.
//
//	running ──pause──▶ paused ──resume──▶ running
//	   └──────stop───────┴──▶ stopped (for good)
type gate struct {
	mu      sync.Mutex
	changed sync.Cond
	state   gateState
	outside int // vCPUs waiting at the gate or gone
	cpus    []*vcpu
}

type gateState uint8

const (
	running gateState = iota
	paused
	stopped
)

func newGate() *gate {
	g := &gate{state: paused} // until start
	g.changed.L = &g.mu
	return g
}

// pass is called by a vCPU that was interrupted. It waits while the machine is
// paused and reports whether the vCPU goes on.
func (g *gate) pass(c *vcpu) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.outside++
	g.changed.Broadcast()
	for g.state == paused {
		g.changed.Wait()
	}
	if g.state == stopped {
		return false // and stays outside
	}
	g.outside--
	// Under the lock, so that a request to stop made from now on is not undone.
	c.kvm.SetImmediateExit(false)
	return true
}

// set asks every vCPU to come to the gate, or lets them go. A stopped gate
// stays stopped.
func (g *gate) set(s gateState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == stopped {
		return
	}
	g.state = s
	if s != running {
		for _, c := range g.cpus {
			c.kick()
		}
	}
	g.changed.Broadcast()
}

// wait returns when every vCPU is outside the guest. Preconditions: set(paused)
// or set(stopped), and no concurrent resume.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.outside < len(g.cpus) {
		g.changed.Wait()
	}
}
