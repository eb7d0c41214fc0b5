package virtio

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ebb-vmm/ebb/virtio/pci"
)

// PCIState is a device and its transport, for migration. Saved are the registers,
// what the driver was told and not yet shown, and for every running queue how far it
// got. What a device asked for of kicks is not part of it: the first look at a queue
// asks anew.
type PCIState struct {
	Config pci.ConfigState
	MSIX   pci.MSIXState

	DeviceFeatureSelect uint32
	DriverFeatureSelect uint32
	DriverFeatures      uint64
	Beyond              bool  // the driver set feature bits above 63
	Status              uint8 // without NEEDS_RESET
	NeedsReset          bool
	Active              bool // the device was activated, and not reset since
	Generation          uint8
	ConfigChanged       bool // since the driver last read the device configuration
	QueueSelect         uint16
	ISR                 uint8
	ConfigVector        uint16
	Queues              []QueueState
	Device              json.RawMessage // a Saver's; else null
}

// QueueState is one virtqueue.
type QueueState struct {
	Size              uint16 // entries
	Desc, Avail, Used uint64 // guest physical addresses
	Enabled           bool
	Vector            uint16

	// Of a queue that runs. Nothing is in flight, so what was taken from the available
	// ring, put into the used ring and shown to the driver is equally much.
	Next   uint16 // next entry of both rings, modulo 2^16
	Failed bool   // nothing is taken any more until reset
}

// Saver is a Device with state besides features and queues. The same rules as for
// ReadConfig, but SaveState may wait for the engine's thread: no reset is under way, so that this doesn't wait for
// the transport.
type Saver interface {
	// SaveState returns the state.
	SaveState() json.RawMessage

	// LoadState takes a state over, after Negotiated if the driver got so far, and
	// before Activate. It comes from the network.
	LoadState(json.RawMessage) error
}

// resume goes on where another host's queue stopped, after start. It makes the next Publish interrupt whatever the driver asked for, and whatever
// it was told before.
func (q *Queue) resume(next uint16, failed bool) {
	q.lastAvail, q.availIdx, q.usedIdx, q.published, q.failed, q.restored = next, next, next, next, failed, true
}

// idle reports whether everything that was taken was given back and shown.
func (q *Queue) idle() error {
	for _, w := range q.inFlight {
		if w != 0 {
			return errors.New("requests are in flight")
		}
	}
	if q.lastAvail != q.usedIdx || q.published != q.usedIdx {
		return errors.New("the driver was not shown everything that is done")
	}
	return nil
}

// Save returns the state. Preconditions: the guest doesn't run, and the device holds:
// it has nothing in flight and takes nothing from its queues. An error says what is
// still going on. Any goroutine.
func (t *PCI) Save() (PCIState, error) {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.regs
	if r.resetting {
		return PCIState{}, errors.New("the device is being reset")
	}
	s := PCIState{
		Config: t.config.Save(), MSIX: t.msix.Save(),
		DeviceFeatureSelect: r.deviceFeatureSelect, DriverFeatureSelect: r.driverFeatureSelect,
		DriverFeatures: r.driverFeatures, Beyond: r.beyond,
		Status: r.status, NeedsReset: t.needsReset.Load(), Active: t.active,
		Generation: r.generation, ConfigChanged: r.configChanged, QueueSelect: r.queueSelect,
		ISR: uint8(t.isr.Load()), ConfigVector: uint16(t.configVector.Load()),
		Queues: make([]QueueState, len(r.queues)),
	}
	for i := range r.queues {
		q := &r.queues[i]
		s.Queues[i] = QueueState{Size: q.size, Desc: q.desc, Avail: q.avail, Used: q.used, Enabled: q.enabled, Vector: uint16(t.queueVectors[i].Load())}
		if !t.active || !q.enabled {
			continue
		}
		if err := q.queue.idle(); err != nil {
			return PCIState{}, fmt.Errorf("queue %d: %w", i, err)
		}
		s.Queues[i].Next, s.Queues[i].Failed = q.queue.lastAvail, q.queue.failed
	}
	if d, ok := t.dev.(Saver); ok {
		s.Device = d.SaveState()
	}
	return s, nil
}

// Load takes a state over, and activates the device if it was active. Preconditions:
// the device is the same and new, no driver has touched it, and it holds, so that
// nothing is taken from its queues yet. Guest memory is only looked up, not read. An
// error says why the state can't be this device's; then it can only be reset and
// closed. Before the guest runs, and not on the engine's thread.
func (t *PCI) Load(s PCIState) error {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	if err := t.loadBus(s.Config, s.MSIX); err != nil {
		return err
	}
	t.mu.Lock()
	queues, err := t.loadRegisters(s)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	t.live.Store(s.Status&StatusDriverOK != 0)
	if !s.Active {
		return nil
	}
	return t.activate(s.DriverFeatures, queues)
}

// loadRegisters fills in the registers and returns the queues as Activate wants
// them; t.mu is held.
func (t *PCI) loadRegisters(s PCIState) ([]*Queue, error) {
	r := &t.regs
	if err := s.check(len(r.queues)); err != nil {
		return nil, err
	}
	if r.status != 0 || r.resetting {
		return nil, errors.New("a driver is at work on the device already")
	}
	r.deviceFeatureSelect, r.driverFeatureSelect = s.DeviceFeatureSelect, s.DriverFeatureSelect
	r.driverFeatures, r.beyond = s.DriverFeatures, s.Beyond
	if s.Status&StatusFeaturesOK != 0 {
		if err := t.negotiate(); err != nil {
			return nil, err
		}
	}
	r.status, r.generation, r.configChanged, r.queueSelect = s.Status, s.Generation, s.ConfigChanged, s.QueueSelect
	t.needsReset.Store(s.NeedsReset)
	t.isr.Store(uint32(s.ISR))
	v, err := t.loadVector(s.ConfigVector)
	if err != nil {
		return nil, err
	}
	t.configVector.Store(v)
	for i := range r.queues {
		if err := t.loadQueue(i, s.Queues[i]); err != nil {
			return nil, fmt.Errorf("queue %d: %w", i, err)
		}
	}
	if d, ok := t.dev.(Saver); ok {
		if err := d.LoadState(s.Device); err != nil {
			return nil, err
		}
	}
	if !s.Active {
		return nil, nil
	}
	queues, err := t.startQueues()
	if err != nil {
		return nil, err
	}
	for i, q := range queues {
		if q != nil {
			q.resume(s.Queues[i].Next, s.Queues[i].Failed)
		}
	}
	return queues, nil
}

// check refuses what no device can have been like.
func (s *PCIState) check(queues int) error {
	const bits = StatusAcknowledge | StatusDriver | StatusDriverOK | StatusFeaturesOK | StatusFailed
	driverOK := s.Status&StatusDriverOK != 0
	switch {
	case len(s.Queues) != queues:
		return fmt.Errorf("%d queues, want %d", len(s.Queues), queues)
	case s.Status&^bits != 0, driverOK && s.Status&StatusFeaturesOK == 0:
		return fmt.Errorf("device status %#x", s.Status)
	case s.Active && !driverOK:
		return fmt.Errorf("active with device status %#x", s.Status)
	case driverOK && !s.Active && !s.NeedsReset:
		return errors.New("DRIVER_OK, but neither active nor in need of a reset")
	case s.ISR&^(isrQueue|isrConfig) != 0:
		return fmt.Errorf("ISR status %#x", s.ISR)
	}
	for i, q := range s.Queues {
		if (q.Next != 0 || q.Failed) && (!s.Active || !q.Enabled) {
			return fmt.Errorf("queue %d ran, but is not in use", i)
		}
		if q.Failed && !s.NeedsReset {
			return fmt.Errorf("queue %d failed, but the device needs no reset", i)
		}
	}
	return nil
}

// loadQueue fills in a queue's registers, with the checks a driver's writes get.
func (t *PCI) loadQueue(i int, s QueueState) error {
	q := &t.regs.queues[i]
	l := layout{size: s.Size, desc: s.Desc, avail: s.Avail, used: s.Used}
	if s.Size != 0 {
		if err := (layout{size: s.Size}).check(q.max); err != nil {
			return err
		}
	}
	if s.Enabled {
		if err := l.check(q.max); err != nil {
			return err
		}
		if _, err := l.resolve(t.mem); err != nil {
			return err
		}
	}
	v, err := t.loadVector(s.Vector)
	if err != nil {
		return err
	}
	t.queueVectors[i].Store(v)
	q.layout, q.enabled = l, s.Enabled
	return nil
}

// loadVector takes a line for a vector the driver named: it was told that there is one.
func (t *PCI) loadVector(v uint16) (uint32, error) {
	if v == pci.NoVector {
		return pci.NoVector, nil
	}
	return uint32(v), t.msix.Allocate(v)
}

// Unload undoes Load: the device is as new, but for what LoadBus prepares. Preconditions and who may call it as of Load, and
// it holds. It waits for the engine, but for no request.
func (t *PCI) Unload() {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	t.active = false
	done := make(chan struct{})
	t.dev.Reset(func() { close(done) })
	<-done
	t.resetDone()
}

// Resumed interrupts the driver once for every running queue, whatever it asked for:
// an interrupt sent just before the guest was stopped may not have arrived. Kicks need
// nothing of the kind, since a device looks at each queue when it is activated. After
// the interrupt controllers were loaded. Any goroutine.
func (t *PCI) Resumed() {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.regs.queues {
		if t.active && t.regs.queues[i].enabled {
			t.usedBuffer(i)
		}
	}
}
