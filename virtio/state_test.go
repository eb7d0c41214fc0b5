package virtio_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

func encode(t testing.TB, s virtio.PCIState) []byte {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *rig) save() []byte {
	r.Helper()
	s, err := r.pci.Save()
	if err != nil {
		r.Fatal(err)
	}
	return encode(r, s)
}

// fresh is the same device on another host, where no driver has touched it.
func (r *rig) fresh() *rig {
	r.Helper()
	n := &rig{T: r.T, dev: &testDevice{sizes: r.dev.sizes}, mem: r.mem, host: virtiotest.NewHost(r), d: r.d}
	var err error
	if n.pci, err = virtio.NewPCI(n.dev, n.mem, n.host, nil); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := n.pci.Close(); err != nil {
			r.Error(err)
		}
	})
	return n
}

func (r *rig) load(b []byte) error {
	var s virtio.PCIState
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	return r.pci.Load(s)
}

// moved carries the device to another host, under its driver.
func (r *rig) moved() *rig {
	r.Helper()
	state := r.save()
	n := r.fresh()
	if err := n.load(state); err != nil {
		r.Fatal(err)
	}
	if again := n.save(); !bytes.Equal(again, state) {
		r.Errorf("saved %s\nloaded and saved again %s", state, again)
	}
	r.d.Move(n.host, n.pci)
	return n
}

// serve answers everything there is, n bytes each, and returns how much that was.
func serve(q *virtio.Queue, n uint32) (served int) {
	for {
		c, ok := q.Next()
		if !ok {
			break
		}
		q.AddUsed(c.Head(), n)
		served++
	}
	q.Publish()
	q.EnableKicks()
	return served
}

// Requests before, at and after a move: each is answered once, over the wrap of the
// indices at 65536.
func TestStateLosesAndDoublesNothing(t *testing.T) {
	for name, s := range map[string]virtiotest.Setup{
		"plain":     {},
		"event idx": {Features: eventIdx | indirect},
		"skewed":    {Features: eventIdx, Skew: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 8)
			q, dq := r.startWith(s)
			buf := r.buf(16, true)
			add := func(i int) uint16 {
				if s.Features&indirect != 0 && i%2 == 0 {
					return q.ChainIndirect(nil, buf)
				}
				return q.Chain(buf)
			}
			dq.EnableKicks()
			for range 1<<16 - 5 { // up to just before the wrap
				q.Push(add(1))
				if serve(dq, 1) != 1 {
					t.Fatal("not served")
				}
				q.Take()
			}
			r.d.Host.Vector(virtiotest.MSIData + 1).Take()
			for round := range 12 {
				// One is answered and not looked at, two are waiting.
				want := []uint16{}
				for i := range 3 {
					head := add(i)
					q.Push(head)
					want = append(want, head)
					if i == 0 {
						serve(dq, 100)
					}
				}
				q.KickIfWanted()
				r = r.moved()
				dq = r.dev.queues[0]
				if r.dev.activations != 1 || len(r.host.IOEventFDs()) != 1 {
					t.Fatalf("%d activations, ioeventfds %v", r.dev.activations, r.host.IOEventFDs())
				}
				if n := serve(dq, 200); n != 2 {
					t.Fatalf("round %d: %d requests after the move, want 2", round, n)
				}
				for i, head := range want {
					got, n, ok := q.Take()
					if !ok || got != head || n != uint32(100+min(i, 1)*100) {
						t.Fatalf("round %d: used %v, head %d, length %d, want head %d", round, ok, got, n, head)
					}
				}
				if _, _, ok := q.Take(); ok {
					t.Fatal("answered twice")
				}
				// And it goes on as ever.
				q.Push(q.Chain(buf))
				if !q.KickIfWanted() || virtiotest.Drain(dq.KickFD()) != 1 {
					t.Fatal("no kick after the move")
				}
				serve(dq, 1)
				q.Take()
			}
			if q.UsedIdx() > 100 {
				t.Fatalf("used idx %d: the test never came to the wrap", q.UsedIdx())
			}
		})
	}
}

// The first used buffers after a move interrupt, whatever the driver asked for before;
// then it has its way again.
func TestStateFirstUsedInterrupts(t *testing.T) {
	for _, features := range []uint64{0, eventIdx} {
		r := newRig(t)
		q, dq := r.start(features)
		if features == 0 {
			q.SetAvailFlags(1) // NO_INTERRUPT
		} else {
			q.SetUsedEvent(1000)
		}
		use := func(what string, want int) {
			t.Helper()
			q.Add(r.buf(16, true))
			serve(dq, 0)
			if n := q.Interrupt().Take(); n != want {
				t.Errorf("features %#x: %d interrupts %s, want %d", features, n, what, want)
			}
		}
		use("before", 0)
		r = r.moved()
		dq = r.dev.queues[0]
		use("for the first", 1)
		use("for the second", 0)
	}
}

func TestResumedInterruptsEachRunningQueue(t *testing.T) {
	r := newRig(t, 16, 16, 16)
	r.pci.Resumed() // nothing to do, and nothing to crash on
	r.startWith(virtiotest.Setup{Features: eventIdx, Queues: 2})
	for _, q := range r.d.Queues {
		q.SetUsedEvent(1000)
	}
	r.d.Set(virtiotest.QueueSelect, 2)
	r.d.Set(virtiotest.QueueVector, 3) // and not enabled
	r.d.ISR()
	r = r.moved()
	for i, q := range r.d.Queues {
		if n := q.Interrupt().Take(); n != 0 {
			t.Errorf("queue %d: %d interrupts by the load", i, n)
		}
	}
	r.pci.Resumed()
	for i, q := range r.d.Queues {
		if n := q.Interrupt().Take(); n != 1 {
			t.Errorf("queue %d: %d interrupts, want 1", i, n)
		}
	}
	if n := r.configInterrupts() + r.d.Vector(3).Take(); n != 0 {
		t.Errorf("%d interrupts for what doesn't run", n)
	}
	if got := r.d.ISR(); got != 1 {
		t.Errorf("ISR status %#x", got)
	}
}

// An interrupt that came while its vector was masked comes once, where the guest unmasks it.
func TestStateMaskedInterrupt(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(0)
	r.d.MaskEntry(1, true)
	q.Add(r.buf(16, true))
	serve(dq, 0)
	if n := q.Interrupt().Take(); n != 0 {
		t.Fatal("a masked vector was delivered")
	}
	r = r.moved().moved()
	if r.host.Vector(virtiotest.MSIData+1) != nil {
		t.Error("a masked vector is routed")
	}
	r.d.MaskEntry(1, false)
	if n := r.d.Vector(1).Take(); n != 1 {
		t.Errorf("%d interrupts when it was unmasked, want 1", n)
	}
	r.d.MaskEntry(1, true)
	r.pci.Resumed()
	r.d.MaskEntry(1, false)
	if n := r.d.Vector(1).Take(); n != 1 {
		t.Errorf("%d interrupts for Resumed, want 1", n)
	}
}

// A driver that is moved between any two of its steps doesn't notice.
func TestStateBetweenTheStepsOfADriver(t *testing.T) {
	r := newRig(t, 16, 16)
	d := r.d
	r = r.moved()
	d.Set(virtiotest.DeviceFeatureSelect, 1)
	d.SetStatus(virtio.StatusAcknowledge)
	d.SetStatus(virtio.StatusDriver)
	r = r.moved()
	d.SetDriverFeatures(version1 | eventIdx | ownFeature)
	r = r.moved()
	d.SetStatus(virtio.StatusFeaturesOK)
	r = r.moved()
	if len(r.dev.negotiated) != 1 || r.dev.negotiated[0] != version1|eventIdx|ownFeature {
		t.Errorf("the device was told the features %#x", r.dev.negotiated)
	}
	d.EnableMSIX()
	r = r.moved()
	d.Set(virtiotest.QueueSelect, 1)
	r = r.moved()
	d.Set(virtiotest.QueueSize, 3) // which the device can't have: it reads 0
	d.Set(virtiotest.QueueVector, 2)
	r = r.moved()
	if size, v := d.Get(virtiotest.QueueSize), d.Get(virtiotest.QueueVector); size != 0 || v != 2 {
		t.Errorf("queue 1: size %d, vector %#x", size, v)
	}
	d.Set(virtiotest.QueueSelect, 0)
	d.Set(virtiotest.QueueSize, 8)
	d.Set(virtiotest.QueueDesc, r.mem.Alloc(128, 16))
	d.Set(virtiotest.QueueDriver, r.mem.Alloc(64, 16))
	r = r.moved()
	d.Set(virtiotest.QueueDevice, r.mem.Alloc(128, 16))
	d.Set(virtiotest.QueueEnable, 1)
	r = r.moved()
	if r.dev.activations != 0 || len(r.host.IOEventFDs()) != 0 {
		t.Error("active before DRIVER_OK")
	}
	d.SetStatus(virtio.StatusDriverOK)
	r = r.moved()
	if r.dev.activations != 1 || r.dev.features != version1|eventIdx|ownFeature || r.dev.queues[0].Size() != 8 || r.dev.queues[1] != nil {
		t.Errorf("after the move: %d activations, features %#x, queues %v", r.dev.activations, r.dev.features, r.dev.queues)
	}
	r.pci.ChangeConfig(func() {})
	generation := d.Get(virtiotest.ConfigGeneration)
	r = r.moved()
	d.DeviceConfig(0, 4)
	if now := d.Get(virtiotest.ConfigGeneration); now != generation+1 {
		t.Errorf("generation %d, then %d: the driver missed a change", generation, now)
	}
	d.Reset()
	r = r.moved()
	if r.dev.activations != 0 {
		t.Error("active after a reset")
	}
	r.start(0) // a driver can start again
}

// What failed stays failed, and nothing else does.
func TestStateOfABrokenDevice(t *testing.T) {
	r := newRig(t, 16, 16)
	r.start(0)
	r.d.Queues[0].SetAvailIdx(99)
	if serve(r.dev.queues[0], 0) != 0 {
		t.Fatal("served")
	}
	r.needsReset()
	r = r.moved()
	if r.d.Status()&virtio.StatusNeedsReset == 0 || r.configInterrupts() != 0 {
		t.Error("NEEDS_RESET is lost, or was announced twice")
	}
	if !r.dev.queues[0].Failed() || r.dev.queues[1].Failed() {
		t.Error("failed queues")
	}
	r.d.Queues[1].Add(r.buf(16, true))
	if serve(r.dev.queues[1], 0) != 1 {
		t.Error("the other queue doesn't go on")
	}
	r.start(0)

	// A device that could not be activated isn't on the next host either.
	r = newRig(t)
	r.dev.activate = errTest
	r.d.Start(virtiotest.Setup{Features: version1})
	r.needsReset()
	r = r.moved()
	if r.dev.activations != 0 || r.d.Status()&virtio.StatusNeedsReset == 0 {
		t.Errorf("%d activations, status %#x", r.dev.activations, r.d.Status())
	}
}
