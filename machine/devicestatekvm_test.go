package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/ebb-vmm/ebb/machine/plain"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// bringUp does what a driver does on a disk, up to DRIVER_OK with one queue and one MSI-X
// vector, by the addresses on the bus.
func bringUp(t *testing.T, h *hardware, a *attached, rings uint64) {
	t.Helper()
	f := pci.Function(a.transport)
	if a.card != nil {
		f = a.card
	}
	bar := uint64(barOf(f))
	store := func(off uint64, width int, v uint64) {
		h.mmio.Write(bar+off, binary.LittleEndian.AppendUint64(nil, v)[:width])
	}
	f.WriteConfig(configCommand, []byte{pci.CommandMemory | pci.CommandBusMaster, 0})
	f.WriteConfig(0x42, []byte{0, 0x80}) // MSI-X on
	store(0x4000, 4, 0xfee00000)
	store(0x4008, 4, 0x41)
	store(0x400c, 4, 0)
	store(0x14, 1, 1)
	store(0x14, 1, 3)
	store(0x08, 4, 1)
	store(0x0c, 4, 1) // VERSION_1
	store(0x14, 1, 0xb)
	store(0x1a, 2, 0)
	store(0x20, 8, rings)
	store(0x28, 8, rings+0x4000)
	store(0x30, 8, rings+0x8000)
	store(0x1c, 2, 1)
	store(0x14, 1, 0xf)
	var p [1]byte
	if h.mmio.Read(bar+0x14, p[:]); p[0] != 0xf {
		t.Fatalf("disk %s: device status %#x", a.disk.cfg.ID, p[0])
	}
	if _, ok := a.device.Stats(); !ok {
		t.Fatalf("disk %s is not active", a.disk.cfg.ID)
	}
}

func barOf(f pci.Function) uint32 {
	var p [4]byte
	f.ReadConfig(configBAR0, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

// moveBAR does what a guest does that gives a function another address.
func moveBAR(f pci.Function, addr uint32) {
	f.WriteConfig(configCommand, []byte{0, 0})
	f.WriteConfig(configBAR0, word(addr))
}

// With KVM: two disks whose addresses the guest exchanged, and one that was hot-plugged.
func TestDeviceStatesWithKVM(t *testing.T) {
	disks := diskImages(t, 3)
	r := prepare(t, Config{Disks: disks[:2], HotplugSlots: 2}, spin)
	defer r.Close()
	r.add(disks[2])
	h, err := newHardware(r.Machine)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { h.close() }()
	if err := h.preset(r.disks); err != nil {
		t.Fatal(err)
	}
	a, b := h.disks[0].transport, h.disks[1].transport
	addrA, addrB := barOf(a), barOf(b)
	moveBAR(a, mmioStart+0x1000000)
	moveBAR(b, addrA)
	moveBAR(a, addrB)
	for i, d := range h.devices() {
		bringUp(t, h, d, uint64(0x400000+i<<16))
	}
	save := func() []byte {
		t.Helper()
		for _, d := range h.devices() { // the vCPUs were never started
			if err := d.device.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s, err := h.saveDevices()
		if err != nil {
			t.Fatal(err)
		}
		return plain.Marshal(s)
	}
	state, bus := save(), h.saveBus()
	for range 3 {
		next, err := newHardware(r.Machine)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.close(); err != nil {
			t.Error(err)
		}
		h = next
		var s devicesState
		if err := plain.Unmarshal(state, &s); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(h.loadBus(bus), h.loadDevices(s, r.disks)); err != nil { // in the order of a migration
			t.Fatal(err)
		}
		if again := save(); !bytes.Equal(again, state) {
			t.Errorf("saved %x\nloaded and saved again %x", state, again)
		}
		if barOf(h.disks[0].transport) != addrB {
			t.Error("disk a is not where the guest put it")
		}
		for _, d := range h.devices() {
			var p [1]byte
			if h.mmio.Read(uint64(barOf(d.transport))+0x14, p[:]); p[0] != 0xf {
				t.Errorf("disk %s: device status %#x", d.disk.cfg.ID, p[0])
			}
			if _, ok := d.device.Stats(); !ok {
				t.Errorf("disk %s is not active", d.disk.cfg.ID)
			}
		}
		h.resumedDevices()
	}
}
