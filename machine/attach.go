package machine

import (
	"fmt"
	"sync"
	"time"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// addDisk puts a disk, the i-th of those given at start, on bus 0.
func (h *hardware) addDisk(m *Machine, d *disk, i int) error {
	a, err := h.attach(m, d, &host{bus: h.pci})
	if err != nil {
		return err
	}
	h.disks = append(h.disks, a)
	slot, fn := place(i)
	if err := h.pci.add(slot, fn, a.transport); err != nil {
		return fmt.Errorf("disk %s: %w", a.disk.cfg.ID, err)
	}
	return nil
}

func (h *hardware) attach(m *Machine, d *disk, host *host) (*attached, error) {
	device, err := m.newDevice(d)
	if err != nil {
		return nil, err
	}
	transport, err := virtio.NewPCI(device, h.ram, host, h.log)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", d.cfg.ID, err)
	}
	return &attached{disk: d, device: device, transport: transport}, nil
}

// addSlots makes the hotplug slots, empty.
func (h *hardware) addSlots(m *Machine) error {
	for i := range m.cfg.HotplugSlots {
		s := newSlot()
		s.make = func(d *disk) (*attached, error) {
			a, err := h.plug(m, d)
			if err != nil {
				h.log.Error("a disk can't be powered on", "disk", d.cfg.ID, "err", err)
			}
			return a, err
		}
		s.gone = func(a *attached) {
			if err := h.takeApart(a); err != nil {
				h.log.Warn("taking a disk out", "disk", a.disk.cfg.ID, "err", err)
			}
		}
		s.port = pci.NewRootPort(i+1, &host{bus: h.pci}, s.follow, func(err error) {
			h.log.Warn("a hotplug interrupt can't be delivered", "slot", i+1, "err", err)
		})
		h.slots = append(h.slots, s)
		if err := h.pci.addSlot(i, s); err != nil {
			return err
		}
	}
	return nil
}

// plug makes the device of a disk in a hotplug slot. It doesn't wait. slot.mu is held.
func (h *hardware) plug(m *Machine, d *disk) (*attached, error) {
	c := &card{}
	a, err := h.attach(m, d, &host{bus: h.pci, front: c})
	if err != nil {
		return nil, err
	}
	if h.moving.Load() {
		a.device.SetDrainWindow(0) // until Outgoing.End
	}
	c.f, a.card = a.transport, c
	return a, nil
}

// preset puts added disks into their slots, where the guest finds them at boot, and
// gives all disks their present size.
// Before the vCPUs start; Machine.mu is held.
func (h *hardware) preset(disks []*disk) error {
	for _, a := range h.disks { // resized while the hardware was made
		a.device.UpdateCapacity()
	}
	for _, d := range disks {
		if d.slot == onBus0 || d.unwanted {
			continue
		}
		s := h.slots[d.slot]
		if err := s.preset(d); err != nil {
			return err
		}
		window := slotWindow(d.slot)
		if err := h.pci.assignBARs(s.device.card, &window, window+slotSize); err != nil {
			return err
		}
	}
	return nil
}

// attached returns what a disk is at this moment, nil if it has no device.
func (h *hardware) attached(d *disk) *attached {
	for _, a := range h.devices() {
		if a.disk == d {
			return a
		}
	}
	return nil
}

// devices returns every device that may have requests in flight. Any goroutine.
func (h *hardware) devices() []*attached {
	all := h.disks[:len(h.disks):len(h.disks)]
	for _, s := range h.slots {
		all = append(all, s.devices()...)
	}
	return all
}

// resized tells the guest that a disk has another size. Machine.mu is held.
func (h *hardware) resized(d *disk) {
	if d.slot != onBus0 {
		h.slots[d.slot].resized(d)
		return
	}
	for _, a := range h.disks {
		if a.disk == d {
			a.resized()
		}
	}
}

func (a *attached) resized() { a.transport.ChangeConfig(a.device.UpdateCapacity) }

// slowDrain is how long takeApart waits for a disk before it says so; it does so again
// when twice as long has passed, but once in maxSlowDrain.
const (
	slowDrain    = 2 * time.Second
	maxSlowDrain = time.Minute
)

// takeApart ends a device and returns when none of its requests is in flight: until
// then the kernel may write into guest memory. Preconditions: no vCPU runs, or the
// device is behind a card.
func (h *hardware) takeApart(a *attached) error {
	if a.card != nil {
		a.card.pull()
		a.transport.WriteConfig(configCommand, []byte{0, 0}) // it answers nowhere any more
	}
	done := make(chan struct{})
	a.device.Reset(sync.OnceFunc(func() { close(done) }))
	h.awaitReset(a, done)
	return a.transport.Close()
}

func (h *hardware) awaitReset(a *attached, done <-chan struct{}) {
	waited := time.Duration(0)
	for wait := slowDrain; ; wait = min(2*wait, maxSlowDrain) {
		select {
		case <-done:
			return
		case <-time.After(wait):
			waited += wait
			s, _ := a.device.Stats()
			h.log.Warn("waiting for the storage of a disk to answer: until then guest memory and the image's lock stay",
				"disk", a.disk.cfg.ID, "image", a.disk.cfg.Path, "in_flight", s.InFlight, "waited", waited)
		}
	}
}
