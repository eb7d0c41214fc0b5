package machine

import (
	"context"
	"errors"
	"fmt"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/machine/chipset"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// devicesState is the state of every device that is not in KVM. It is always the same for the
// same devices.
type devicesState struct {
	Serial chipset.SerialState
	Power  chipset.PowerState
	CMOS   chipset.CMOSState

	PCIAddress uint32 // what was last written to CF8
	HostBridge pci.ConfigState
	Disks      []diskState // on bus 0, in their order
	Slots      []slotState
	Groups     []groupState // sorted by name
}

// groupState is what the limits that several disks share have left.
type groupState struct {
	Name   string
	Tokens aio.Tokens
}

// diskState is a disk's device.
type diskState struct {
	ID     string
	Device virtio.PCIState
}

// slotState is a hotplug slot.
type slotState struct {
	Port   pci.ConfigState
	Disk   string           // id of the disk in it; empty: none
	Device *virtio.PCIState // what answers behind the port; nil: the slot is dark
}

// saveDevices returns the state of the devices. Preconditions: no vCPU runs, and the
// disks hold with nothing in flight (hardware.pause); Machine.mu is held. An error is
// a sentence that names what can't be saved at this moment. It waits for nothing but the engine's thread.
func (h *hardware) saveDevices() (devicesState, error) {
	s := devicesState{
		Serial: h.serial.Save(), Power: h.power.Save(), CMOS: h.cmos.Save(),
		PCIAddress: h.pci.saveAddress(), HostBridge: h.pci.bridge.Save(),
		Disks: make([]diskState, len(h.disks)),
		Slots: make([]slotState, len(h.slots)),
	}
	for i, a := range h.disks {
		d, err := a.transport.Save()
		if err != nil {
			return devicesState{}, fmt.Errorf("disk %s: %w", a.disk.cfg.ID, err)
		}
		s.Disks[i] = diskState{ID: a.disk.cfg.ID, Device: d}
	}
	for i, slot := range h.slots {
		var err error
		if s.Slots[i], err = slot.save(); err != nil {
			return devicesState{}, err
		}
	}
	return s, nil
}

// loadDevices takes the place of preset in hardware just made for the same
// configuration: disks are those of the machine, of which those in hotplug slots are
// in the slots they had. Disks with a running driver are activated and hold, until
// hardware.resume. The state may be anything at all: an error says what can't be true
// of this machine, and then the hardware can only be closed. It waits for the engine,
// but for no request. Before the vCPUs start and before the interrupt controllers are loaded.
func (h *hardware) loadDevices(s devicesState, disks []*disk) error {
	switch {
	case len(s.Disks) != len(h.disks):
		return fmt.Errorf("the state has %d disks given at start, this machine has %d", len(s.Disks), len(h.disks))
	case len(s.Slots) != len(h.slots):
		return fmt.Errorf("the state has %d hotplug slots, this machine has %d", len(s.Slots), len(h.slots))
	}
	if err := errors.Join(h.serial.Load(s.Serial), h.power.Load(s.Power), h.cmos.Load(s.CMOS), h.pci.loadAddress(s.PCIAddress)); err != nil {
		return err
	}
	if err := h.pci.bridge.Load(s.HostBridge); err != nil {
		return fmt.Errorf("PCI host bridge: %w", err)
	}
	h.makeWay(func(i int) pci.ConfigState { return s.Disks[i].Device.Config })
	return together(len(h.disks)+len(h.slots), func(i int) error { // each waits for the engine
		if i < len(h.disks) {
			a := h.disks[i]
			if id := a.disk.cfg.ID; s.Disks[i].ID != id {
				return fmt.Errorf("the state has disk %q where this machine has %s", s.Disks[i].ID, id)
			}
			if err := a.load(s.Disks[i].Device); err != nil {
				return fmt.Errorf("disk %s: %w", a.disk.cfg.ID, err)
			}
			return nil
		}
		i -= len(h.disks)
		if err := h.slots[i].load(s.Slots[i], diskInSlot(disks, i)); err != nil {
			return fmt.Errorf("hotplug slot %d: %w", i+1, err)
		}
		return nil
	})
}

// makeWay has disks given at start answer nowhere that are to be somewhere else: the guest may have exchanged the addresses of two.
func (h *hardware) makeWay(config func(i int) pci.ConfigState) {
	for i, a := range h.disks {
		if !a.transport.IsAt(config(i)) {
			a.transport.WriteConfig(configCommand, []byte{0, 0})
		}
	}
}

// busState is a disk's device on the bus.
type busState struct {
	ID  string
	Bus virtio.BusState
}

// saveBus returns what can be prepared before the guest stands: of the disks given at start. Any goroutine.
func (h *hardware) saveBus() (list []busState) {
	for _, a := range h.disks {
		list = append(list, busState{a.disk.cfg.ID, a.transport.SaveBus()})
	}
	return list
}

// loadBus prepares what saveBus saved. As loadDevices, which comes after it.
func (h *hardware) loadBus(list []busState) error {
	if len(list) != len(h.disks) {
		return fmt.Errorf("%d disks given at start come, this machine has %d", len(list), len(h.disks))
	}
	h.makeWay(func(i int) pci.ConfigState { return list[i].Bus.Config })
	for i, a := range h.disks {
		id := a.disk.cfg.ID
		if list[i].ID != id {
			return fmt.Errorf("disk %q comes where this machine has %s", list[i].ID, id)
		}
		if err := a.transport.LoadBus(list[i].Bus); err != nil {
			return fmt.Errorf("disk %s: %w", id, err)
		}
	}
	return nil
}

// load gives a new device the state of another, and the disk its present size. The
// device holds from here on.
func (a *attached) load(s virtio.PCIState) error {
	a.device.UpdateCapacity()
	if err := a.device.Pause(context.Background()); err != nil { // there is nothing to wait for
		return err
	}
	return a.transport.Load(s)
}

// resumedDevices interrupts every running driver once (virtio.PCI.Resumed), and those of a line that is up. After
// loadDevices and the load of the interrupt controllers, before the vCPUs start.
func (h *hardware) resumedDevices() {
	h.serial.Resumed()
	h.power.Resumed()
	for _, a := range h.devices() {
		a.transport.Resumed()
	}
}

// unloadDevices undoes what loadDevices did to disks and slots, and that may come again. What it may be called beside, and waits for, is the same.
func (h *hardware) unloadDevices() {
	_ = together(len(h.disks)+len(h.slots), func(i int) error {
		if i < len(h.disks) {
			h.disks[i].transport.Unload()
		} else {
			h.slots[i-len(h.disks)].unload()
		}
		return nil
	})
}

func diskInSlot(disks []*disk, slot int) *disk {
	for _, d := range disks {
		if d.slot == slot {
			return d
		}
	}
	return nil
}

// save returns the slot's state. An error says what is going on in it.
func (s *slot) save() (slotState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := slotState{Port: s.port.Save()}
	switch {
	case s.leaving != nil:
		return slotState{}, fmt.Errorf("disk %s is being taken apart", s.leaving.disk.cfg.ID)
	case s.disk == nil:
		return st, nil
	case s.unwanted || s.disk.unwanted:
		return slotState{}, fmt.Errorf("disk %s is being removed", s.disk.cfg.ID)
	}
	st.Disk = s.disk.cfg.ID
	if s.device != nil {
		d, err := s.device.transport.Save()
		if err != nil {
			return slotState{}, fmt.Errorf("disk %s: %w", st.Disk, err)
		}
		st.Device = &d
	}
	return st, nil
}

// load gives an empty slot the state of another, with its disk, nil if there is none.
func (s *slot) load(st slotState, d *disk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.disk != nil:
		return fmt.Errorf("disk %s is in it already", s.disk.cfg.ID)
	case d == nil && st.Disk != "":
		return fmt.Errorf("the state has disk %q in it, this machine has none", st.Disk)
	case d != nil && st.Disk != d.cfg.ID:
		return fmt.Errorf("the state has disk %q in it, this machine has %s", st.Disk, d.cfg.ID)
	}
	if err := s.port.Load(st.Port); err != nil {
		return err
	}
	s.disk = d
	switch {
	case st.Device == nil:
		return nil
	case d == nil || !s.port.Powered():
		return errors.New("the state has a device that runs in it, without a disk or without power")
	}
	device, err := s.make(d)
	if err != nil {
		return err
	}
	s.device = device // so that it is taken apart, whatever comes now
	if err := device.load(*st.Device); err != nil {
		return fmt.Errorf("disk %s: %w", d.cfg.ID, err)
	}
	return nil
}

// unload makes the slot empty again.
func (s *slot) unload() {
	s.mu.Lock()
	a := s.device
	s.disk, s.device = nil, nil
	s.mu.Unlock()
	if a != nil {
		s.gone(a)
	}
}

func (b *pciBus) saveAddress() uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.address
}

func (b *pciBus) loadAddress(v uint32) error {
	if v&3 != 0 {
		return fmt.Errorf("PCI address %#x is not a multiple of 4", v)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.address = v
	return nil
}
