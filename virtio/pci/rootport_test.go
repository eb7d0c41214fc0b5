package pci_test

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ebb-vmm/ebb/virtio/pci"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// Registers of a root port, as pciehp uses them: offsets in the PCI Express
// capability, and bits.
const (
	linkControl, linkStatus = 0x10, 0x12
	slotControl, slotStatus = 0x18, 0x1a

	buttonPressed, presenceChanged, linkChanged = 1 << 0, 1 << 3, 1 << 8
	slotPresent, linkActive                     = 1 << 6, 1 << 13
	hotplugInterrupt, powerOff, linkDisable     = 1 << 5, 1 << 10, 1 << 4
	indicatorOn, indicatorBlink, indicatorOff   = 1 << 8, 2 << 8, 3 << 8

	enabled = buttonPressed | hotplugInterrupt | linkChanged<<4 // what pciehp enables in slot control
)

type portRig struct {
	*testing.T
	h       *virtiotest.Host
	p       *pci.RootPort
	msi     int // offset of the MSI capability
	express int
	changes int
	sent    int
}

func newPortRig(t *testing.T) *portRig {
	r := &portRig{T: t, h: virtiotest.NewHost(t)}
	r.p = pci.NewRootPort(5, r.h, func() { r.changes++ }, func(err error) { t.Error(err) })
	for at := get(r.p, 0x34, 1); at != 0; at = get(r.p, int(at)+1, 1) {
		switch get(r.p, int(at), 1) {
		case 0x05:
			r.msi = int(at)
		case 0x10:
			r.express = int(at)
		}
	}
	if r.msi == 0 || r.express == 0 {
		t.Fatalf("MSI at %#x, PCI Express at %#x", r.msi, r.express)
	}
	t.Cleanup(func() {
		if err := r.p.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *portRig) get(off int) uint32          { return get(r.p, r.express+off, 2) }
func (r *portRig) set(off int, v uint32)       { set(r.p, r.express+off, 2, v) }
func (r *portRig) change(off int, v, b uint32) { r.set(off, r.get(off)&^v|b) }

// listen programs the interrupt as Linux does.
func (r *portRig) listen() {
	set(r.p, 0x04, 2, pci.CommandBusMaster)
	set(r.p, r.msi+4, 4, virtiotest.MSIAddr)
	set(r.p, r.msi+12, 2, 0x4321)
	set(r.p, r.msi+2, 2, 1)
	r.change(slotControl, 0, enabled)
}

// messages counts the interrupts so far.
func (r *portRig) messages() int {
	if v := r.h.Vector(0x4321); v != nil {
		r.sent += v.Take()
	}
	return r.sent
}

func (r *portRig) want(what string, off int, mask, value uint32) {
	r.Helper()
	if got := r.get(off); got&mask != value {
		r.Errorf("%s: register %#x is %#x, want %#x in %#x", what, off, got, value, mask)
	}
}

func TestRootPortIsABridgeWithASlot(t *testing.T) {
	r := newPortRig(t)
	if header, class := get(r.p, 0x0e, 1), get(r.p, 0x08, 4)>>8; header != 1 || class != 0x060400 {
		t.Errorf("header %#x, class %#x", header, class)
	}
	if flags := r.get(0x02); flags != 1<<8|4<<4|2 {
		t.Errorf("PCI Express flags %#x, want a root port with a slot", flags)
	}
	if slot := get(r.p, r.express+0x14, 4); slot>>19 != 5 || slot&0x7f != 0x53 || slot>>18&1 != 1 {
		t.Errorf("slot capabilities %#x", slot)
	}
	r.want("empty slot", slotStatus, 0xffff, 0)
	r.want("no link", linkStatus, linkActive, 0)
	if r.p.Powered() || r.p.PowerIndicator() != pci.IndicatorOff {
		t.Error("an empty slot is on")
	}

	// No windows for I/O and prefetchable memory, and none for memory yet.
	for _, off := range []int{0x1c, 0x24, 0x30} {
		if set(r.p, off, 4, 0xffffffff); get(r.p, off, 4)&0xffff != 0 {
			t.Errorf("window at %#x: %#x", off, get(r.p, off, 4))
		}
	}
	if base, limit := get(r.p, 0x20, 2), get(r.p, 0x22, 2); base <= limit {
		t.Errorf("memory window %#x-%#x", base, limit)
	}
	r.p.SetWindow(0xd0000000, 0xd00fffff)
	set(r.p, 0x18, 4, 0xff070700)
	if buses, window := get(r.p, 0x18, 4), get(r.p, 0x20, 4); buses != 0x00070700 || window != 0xd000d000 || r.p.SecondaryBus() != 7 {
		t.Errorf("buses %#x, window %#x", buses, window)
	}
}

// What a guest goes through when a disk is added and removed.
func TestRootPortHotplug(t *testing.T) {
	r := newPortRig(t)
	if r.p.Listening() {
		t.Error("the guest listens before it says so")
	}
	if r.listen(); r.changes != 1 || !r.p.Listening() {
		t.Errorf("the guest listens: %v after %d changes", r.p.Listening(), r.changes)
	}
	r.p.Insert()
	r.want("inserted", slotStatus, 0xffff, slotPresent|presenceChanged|buttonPressed)
	if n := r.messages(); n != 1 {
		t.Fatalf("%d interrupts after a disk was inserted", n)
	}
	// Not another one before all events are gone (6.7.3.4).
	r.set(slotStatus, buttonPressed)
	r.p.PressButton()
	if n := r.messages(); n != 2 {
		t.Errorf("%d interrupts after a second press", n)
	}
	r.p.PressButton()
	if n := r.messages(); n != 2 {
		t.Errorf("%d interrupts for an event that is pending already", n)
	}
	r.set(slotStatus, 0xffff)
	r.want("events gone", slotStatus, 0xffff, slotPresent)

	r.change(slotControl, powerOff|indicatorOff, indicatorBlink)
	if r.changes != 2 || !r.p.Powered() || r.p.PowerIndicator() != pci.IndicatorBlink {
		t.Errorf("%d changes, powered %v, indicator %d", r.changes, r.p.Powered(), r.p.PowerIndicator())
	}
	r.p.SetLink(true)
	r.want("link", linkStatus, linkActive, linkActive)
	r.want("link event", slotStatus, 0xffff, slotPresent|linkChanged)
	if n := r.messages(); n != 3 {
		t.Errorf("%d interrupts after the link came up", n)
	}
	r.set(slotStatus, linkChanged)
	r.change(slotControl, indicatorOff, indicatorOn)

	r.change(slotControl, indicatorOff, powerOff|indicatorOff)
	if r.p.Powered() || r.changes != 4 {
		t.Errorf("powered %v after %d changes", r.p.Powered(), r.changes)
	}
	r.p.SetLink(false)
	r.p.Eject()
	r.want("ejected", slotStatus, 0xffff, presenceChanged|linkChanged)
	r.want("link", linkStatus, linkActive, 0)
}

// Events before the guest listens are neither lost nor sent to nobody.
func TestRootPortInterruptConditions(t *testing.T) {
	for name, last := range map[string]func(r *portRig){
		"hotplug interrupt": func(r *portRig) { r.change(slotControl, 0, hotplugInterrupt) },
		"event enable":      func(r *portRig) { r.change(slotControl, 0, buttonPressed) },
		"MSI enable":        func(r *portRig) { set(r.p, r.msi+2, 2, 1) },
		"bus master":        func(r *portRig) { set(r.p, 0x04, 2, pci.CommandBusMaster) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newPortRig(t)
			r.listen()
			switch name {
			case "hotplug interrupt":
				r.change(slotControl, hotplugInterrupt, 0)
			case "event enable":
				r.change(slotControl, buttonPressed, 0)
			case "MSI enable":
				set(r.p, r.msi+2, 2, 0)
			case "bus master":
				set(r.p, 0x04, 2, 0)
			}
			r.p.PressButton()
			if n := r.messages(); n != 0 {
				t.Errorf("%d interrupts without it", n)
			}
			last(r)
			if n := r.messages(); n != 1 {
				t.Errorf("%d interrupts with it", n)
			}
		})
	}
}

// Whatever takes power, link or bus away takes the device away.
func TestRootPortPower(t *testing.T) {
	r := newPortRig(t)
	r.p.Preset()
	if !r.p.Powered() || r.changes != 0 {
		t.Fatalf("a slot occupied at reset: powered %v, %d changes", r.p.Powered(), r.changes)
	}
	r.want("occupied at reset", slotStatus, 0xffff, slotPresent)
	for _, c := range []struct {
		name    string
		at, bit int
	}{
		{"power", r.express + slotControl, powerOff},
		{"link", r.express + linkControl, linkDisable},
		{"secondary bus reset", 0x3e, 1 << 6},
	} {
		changes := r.changes
		set(r.p, c.at, 2, get(r.p, c.at, 2)|uint32(c.bit))
		if r.p.Powered() || r.changes != changes+1 {
			t.Errorf("%s: powered %v, %d changes", c.name, r.p.Powered(), r.changes-changes)
		}
		set(r.p, c.at, 2, get(r.p, c.at, 2)&^uint32(c.bit))
		if !r.p.Powered() || r.changes != changes+2 {
			t.Errorf("%s back: powered %v, %d changes", c.name, r.p.Powered(), r.changes-changes)
		}
	}
}

// A guest that writes anything anywhere, beside a host that plugs: nothing breaks,
// and what is read-only stays.
func TestRootPortTakesAnything(t *testing.T) {
	r := newPortRig(t)
	r.p = pci.NewRootPort(5, r.h, func() {}, nil)
	var all sync.WaitGroup
	for seed := range uint64(2) {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 0))
			for range 20000 {
				var p [4]byte
				binary.LittleEndian.PutUint32(p[:], rnd.Uint32())
				width := 1 << rnd.IntN(3)
				r.p.WriteConfig(rnd.IntN(0x110/width)*width, p[:width])
				r.p.ReadConfig(rnd.IntN(0x110/width)*width, p[:width])
			}
		})
	}
	for range 1000 {
		r.p.Insert()
		r.p.SetLink(true)
		r.p.PressButton()
		r.p.SetLink(false)
		r.p.Eject()
	}
	all.Wait()
	r.want("slot is empty", slotStatus, slotPresent, 0)
	if id, header := get(r.p, 0, 4), get(r.p, 0x0e, 1); id != 0x000c1b36 || header != 1 {
		t.Errorf("ids %#x, header %#x", id, header)
	}
	if slot := get(r.p, r.express+0x14, 4); slot>>19 != 5 {
		t.Errorf("slot capabilities %#x", slot)
	}
}
