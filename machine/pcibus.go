package machine

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/bus"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// pciBus is PCI bus 0 with its host bridge: configuration space by ECAM and by
// the ports CF8 and CFC, and the BARs of its functions. What can come and go is
// behind its root ports.
type pciBus struct {
	vm   *kvm.VM
	irqs *interrupts
	mmio *bus.Bus

	bridge    *pci.Config         // the host bridge, function 0 of device 0
	functions [32][8]pci.Function // fixed before the vCPUs start
	slots     []*slot             // fixed before the vCPUs start
	nextBAR   uint64

	mu      sync.Mutex
	address uint32 // what was last written to CF8
	reset   func()
}

const (
	// Offsets in configuration space that firmware writes.
	configCommand = 0x04
	configBAR0    = 0x10
)

func newPCIBus(vm *kvm.VM, irqs *interrupts, ports, mmio *bus.Bus, reset func()) (*pciBus, error) {
	b := &pciBus{vm: vm, irqs: irqs, mmio: mmio, nextBAR: mmioStart, reset: reset}
	// The host bridge's ids are those of QEMU's generic PCIe host bridge: a bridge
	// without registers of its own, that no driver has to know.
	b.bridge = pci.NewConfig(pci.ID{Vendor: 0x1b36, Device: 0x0008, Class: 0x060000})
	b.functions[0][0] = pci.Bare{Config: b.bridge}
	if err := ports.Add(portPCI, 8, configPorts{b}); err != nil {
		return nil, err
	}
	return b, mmio.Add(ecamBase, ecamSize, ecam{b})
}

// multifunction is what a function at number 0 must be told when others follow.
type multifunction interface{ SetMultifunction(on bool) }

// add plugs a function in and assigns its BARs. Before the vCPUs start.
func (b *pciBus) add(slot, fn int, f pci.Function) error {
	b.functions[slot][fn] = f
	if m, ok := b.functions[slot][0].(multifunction); ok && fn > 0 {
		m.SetMultifunction(true)
	}
	return b.assignBARs(f, &b.nextBAR, slotStart)
}

// addSlot plugs the root port of a hotplug slot in. Before the vCPUs start. The guest
// numbers the bus behind it: where there is a number already, Linux looks for devices
// with known faults there, 32 configuration reads a bus, early in its boot.
func (b *pciBus) addSlot(i int, s *slot) error {
	b.slots = append(b.slots, s)
	window := slotWindow(i)
	s.port.SetWindow(uint32(window), uint32(window+slotSize-1))
	device, fn := portPlace(i)
	return b.add(device, fn, s.port)
}

// assignBARs gives a function's BARs addresses from next on, which moves behind them,
// with the configuration accesses firmware would use.
func (b *pciBus) assignBARs(f pci.Function, next *uint64, end uint64) error {
	var word [4]byte
	for bar := range 6 {
		size := f.BARSize(bar)
		if size == 0 {
			continue
		}
		size = max(size, 4096) // no two functions in one page
		addr := (*next + size - 1) &^ (size - 1)
		if addr+size > end {
			return fmt.Errorf("the BARs of all devices don't fit below %#x", end)
		}
		*next = addr + size
		binary.LittleEndian.PutUint32(word[:], uint32(addr))
		f.WriteConfig(configBAR0+4*bar, word[:])
	}
	f.ReadConfig(configCommand, word[:2])
	word[0] |= pci.CommandMemory
	f.WriteConfig(configCommand, word[:2])
	return nil
}

// function returns what answers at an address, nil if nothing does. Behind a root
// port there is one device with one function.
func (b *pciBus) function(busNr, slot, fn int) pci.Function {
	if busNr == 0 {
		return b.functions[slot][fn]
	}
	if slot != 0 || fn != 0 {
		return nil
	}
	for _, s := range b.slots { // a bus without number is bus 0
		if int(s.port.SecondaryBus()) == busNr {
			return s.function()
		}
	}
	return nil
}

// config is one access to configuration space. Where there is no function it
// reads all ones.
func (b *pciBus) config(busNr, slot, fn, off int, p []byte, write bool) {
	f := b.function(busNr, slot, fn)
	aligned := len(p) <= 4 && off&(len(p)-1) == 0
	switch {
	case f == nil || !aligned:
		if !write {
			ones(p)
		}
	case write:
		f.WriteConfig(off, p)
	default:
		f.ReadConfig(off, p)
	}
}

func ones(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}

// ecam is the memory-mapped configuration space (PCI Express Base Specification
// 5.0, 7.2.2): bus, slot, function and offset are bits 20, 15, 12 and 0 of the
// address.
type ecam struct{ b *pciBus }

func (e ecam) Read(off uint64, p []byte)  { e.access(off, p, false) }
func (e ecam) Write(off uint64, p []byte) { e.access(off, p, true) }

func (e ecam) access(off uint64, p []byte, write bool) {
	e.b.config(int(off>>20), int(off>>15&31), int(off>>12&7), int(off&4095), p, write)
}

// configPorts is configuration mechanism #1 (PCI 3.0, 3.2.2.3.2), and the reset
// control byte chipsets put in the middle of it.
type configPorts struct{ b *pciBus }

const configEnable = 1 << 31

func (c configPorts) Read(off uint64, p []byte) {
	switch {
	case off == 0 && len(p) == 4:
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		binary.LittleEndian.PutUint32(p, c.b.address)
	case off >= 4:
		c.data(off, p, false)
	default:
		ones(p)
	}
}

func (c configPorts) Write(off uint64, p []byte) {
	switch {
	case off == 0 && len(p) == 4:
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		c.b.address = binary.LittleEndian.Uint32(p) &^ 3
	case off == portReset-portPCI && len(p) == 1 && p[0]&0x04 != 0:
		c.b.reset()
	case off >= 4:
		c.data(off, p, true)
	}
}

func (c configPorts) data(off uint64, p []byte, write bool) {
	c.b.mu.Lock()
	a := c.b.address
	c.b.mu.Unlock()
	if a&configEnable == 0 {
		if !write {
			ones(p)
		}
		return
	}
	c.b.config(int(a>>16&0xff), int(a>>11&31), int(a>>8&7), int(a&0xfc)+int(off&3), p, write)
}

// bar passes accesses in a mapped BAR on to its function.
type bar struct {
	f pci.Function
	n int
}

func (r bar) Read(off uint64, p []byte)  { r.f.ReadBAR(r.n, off, p) }
func (r bar) Write(off uint64, p []byte) { r.f.WriteBAR(r.n, off, p) }
