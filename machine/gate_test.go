package machine

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/kvm"
)

// fakeCPU goes through a gate without ever entering a guest.
type fakeCPU struct {
	vcpu
	steps  int // changes only inside; the race detector sees who reads it when
	passes atomic.Int32
}

func (c *fakeCPU) run(g *gate) {
	for g.pass(&c.vcpu) {
		c.passes.Add(1)
		for range 10 {
			c.steps++
			runtime.Gosched()
		}
	}
}

func newFakes(t *testing.T, n int) (*gate, []*fakeCPU) {
	t.Helper()
	needKVM(t)
	s, err := kvm.Open(kvmPath)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := s.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close(); s.Close() })
	g := newGate()
	g.release(notStarted)
	var cpus []*fakeCPU
	for id := range n {
		k, err := vm.CreateVCPU(id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		c := &fakeCPU{vcpu: vcpu{id: id, kvm: k, gate: g}}
		cpus = append(cpus, c)
		g.cpus = append(g.cpus, &c.vcpu)
	}
	return g, cpus
}

// within fails the test if f doesn't return.
func within(t *testing.T, what string, g *gate, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(hung):
		stacks := make([]byte, 1<<20)
		t.Fatalf("%s hangs, the gate is held by %#b, %d outside\n%s", what, g.held, g.outside, stacks[:runtime.Stack(stacks, true)])
	}
}

// While the gate is held every vCPU is outside; released, each goes on.
func TestGate(t *testing.T) {
	for _, n := range []int{1, 2, 5} {
		g, cpus := newFakes(t, n)
		var loops sync.WaitGroup
		for _, c := range cpus {
			loops.Go(func() { c.run(g) })
		}
		within(t, "pausing", g, func() {
			stood := make([]int, n)
			for range 200 {
				g.hold(byUser)
				g.wait()
				for i, c := range cpus {
					stood[i] = c.steps
				}
				for range rand.IntN(20) {
					runtime.Gosched()
				}
				for i, c := range cpus {
					if c.steps != stood[i] {
						t.Errorf("vCPU %d went from %d to %d behind a closed gate", i, stood[i], c.steps)
					}
				}
				g.release(byUser)
				if rand.IntN(2) == 0 { // pause again before they have noticed
					continue
				}
				for _, c := range cpus {
					for before := c.passes.Load(); c.passes.Load() == before; {
						runtime.Gosched()
					}
				}
			}
		})
		g.hold(guestOver)
		within(t, "stopping", g, func() { g.wait(); loops.Wait() })
		for i, c := range cpus {
			if c.steps != 10*int(c.passes.Load()) {
				t.Errorf("vCPU %d: %d steps in %d passes", i, c.steps, c.passes.Load())
			}
		}
	}
}

// A stop that comes in the middle of pauses and resumes wins.
func TestStopBeatsPauseAndResume(t *testing.T) {
	for range 50 {
		g, cpus := newFakes(t, 2)
		var loops, others sync.WaitGroup
		for _, c := range cpus {
			loops.Go(func() { c.run(g) })
		}
		others.Go(func() {
			for range 20 {
				g.hold(byUser)
				g.wait()
				g.release(byUser)
			}
		})
		others.Go(func() {
			for range rand.IntN(200) {
				runtime.Gosched()
			}
			g.hold(guestOver)
		})
		within(t, "stopping", g, func() { others.Wait(); loops.Wait(); g.wait() })
		g.release(byUser)
		if g.pass(&cpus[0].vcpu) {
			t.Errorf("a gate opened after the guest's end: held by %#b", g.held)
		}
	}
}
