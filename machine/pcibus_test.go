package machine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/ebb-vmm/ebb/machine/bus"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// fakeFunction is a function with BARs that remembers what reached them.
type fakeFunction struct {
	*pci.Config
	last string
}

func newFake(b *pciBus, id uint16, bars ...uint64) *fakeFunction {
	f := &fakeFunction{Config: pci.NewConfig(pci.ID{Vendor: 0x1af4, Device: id, Class: 0xff0000})}
	for i, size := range bars {
		if size != 0 {
			f.AddBAR(i, size)
		}
	}
	f.Bind(pci.Binding{Function: f, Host: &host{bus: b}})
	return f
}

func (f *fakeFunction) ReadConfig(off int, p []byte)  { f.Read(off, p) }
func (f *fakeFunction) WriteConfig(off int, p []byte) { f.Write(off, p) }
func (f *fakeFunction) ReadBAR(bar int, off uint64, p []byte) {
	f.last = fmt.Sprintf("read %d+%#x", bar, off)
	for i := range p {
		p[i] = byte(off) + byte(i)
	}
}
func (f *fakeFunction) WriteBAR(bar int, off uint64, p []byte) {
	f.last = fmt.Sprintf("write %d+%#x: %x", bar, off, p)
}

// pciRig is a bus seen by a guest: through ports and memory.
type pciRig struct {
	t           *testing.T
	ports, mmio bus.Bus
	bus         *pciBus
	resets      int
}

func newPCIRig(t *testing.T) *pciRig {
	r := &pciRig{t: t}
	var err error
	if r.bus, err = newPCIBus(nil, nil, &r.ports, &r.mmio, func() { r.resets++ }); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *pciRig) add(slot, fn int, f pci.Function) {
	r.t.Helper()
	if err := r.bus.add(slot, fn, f); err != nil {
		r.t.Fatal(err)
	}
}

func word(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

func (r *pciRig) selectFunction(busNr, slot, fn, off int) {
	r.ports.Write(0xcf8, word(1<<31|uint32(busNr<<16|slot<<11|fn<<8|off&0xfc)))
}

// byPort and byECAM read configuration space in the two ways there are.
func (r *pciRig) byPort(busNr, slot, fn, off, size int) []byte {
	p := make([]byte, size)
	r.selectFunction(busNr, slot, fn, off)
	r.ports.Read(uint64(0xcfc+off&3), p)
	return p
}

func ecamAddr(busNr, slot, fn, off int) uint64 {
	return ecamBase + uint64(busNr<<20|slot<<15|fn<<12|off)
}

func (r *pciRig) byECAM(busNr, slot, fn, off, size int) []byte {
	p := make([]byte, size)
	r.mmio.Read(ecamAddr(busNr, slot, fn, off), p)
	return p
}

func TestBothWaysToConfigurationSpaceAgree(t *testing.T) {
	r := newPCIRig(t)
	r.add(1, 0, newFake(r.bus, 0x1111, 0x1000))
	r.add(1, 7, newFake(r.bus, 0x1117, 0, 0x4000))
	r.add(31, 0, newFake(r.bus, 0x2222))
	for _, at := range [][2]int{{0, 0}, {1, 0}, {1, 7}, {31, 0}} {
		for _, size := range []int{1, 2, 4} {
			for off := 0; off < 256; off += size {
				a, b := r.byPort(0, at[0], at[1], off, size), r.byECAM(0, at[0], at[1], off, size)
				if !bytes.Equal(a, b) {
					t.Errorf("slot %d, function %d, %d bytes at %#x: % x by port, % x by ECAM", at[0], at[1], size, off, a, b)
				}
			}
		}
		if got := r.byECAM(0, at[0], at[1], 0x100, 4); !bytes.Equal(got, word(0)) {
			t.Errorf("extended capabilities of slot %d: % x, want none", at[0], got)
		}
	}
	for at, want := range map[[2]int]uint32{{0, 0}: 0x00081b36, {1, 0}: 0x11111af4, {1, 7}: 0x11171af4, {31, 0}: 0x22221af4} {
		if got := r.byPort(0, at[0], at[1], 0, 4); !bytes.Equal(got, word(want)) {
			t.Errorf("slot %d, function %d: ids % x, want %#x", at[0], at[1], got, want)
		}
	}

	// What is written by one way is read by the other.
	r.selectFunction(0, 1, 7, 0x3c)
	r.ports.Write(0xcfc, []byte{0x42})
	if got := r.byECAM(0, 1, 7, 0x3c, 1); got[0] != 0x42 {
		t.Errorf("written by port, read by ECAM: %#x", got)
	}
	r.mmio.Write(ecamAddr(0, 31, 0, 0x3c), []byte{0x43})
	if got := r.byPort(0, 31, 0, 0x3c, 1); got[0] != 0x43 {
		t.Errorf("written by ECAM, read by port: %#x", got)
	}
	if got := r.byPort(0, 1, 0, 0x3c, 1); got[0] != 0 {
		t.Errorf("the neighbour has it too: %#x", got)
	}
}

func TestNothingThereReadsAsOnes(t *testing.T) {
	r := newPCIRig(t)
	r.add(1, 0, newFake(r.bus, 0x1111))
	ones := []byte{0xff, 0xff, 0xff, 0xff}
	for _, at := range [][3]int{{0, 2, 0}, {0, 1, 1}, {0, 0, 1}, {0, 31, 7}, {1, 0, 0}, {1, 1, 0}, {255, 31, 7}} {
		for _, size := range []int{1, 2, 4} {
			if got := r.byPort(at[0], at[1], at[2], 0, size); !bytes.Equal(got, ones[:size]) {
				t.Errorf("%v by port: % x", at, got)
			}
			if got := r.byECAM(at[0], at[1], at[2], 0, size); !bytes.Equal(got, ones[:size]) {
				t.Errorf("%v by ECAM: % x", at, got)
			}
		}
		r.mmio.Write(ecamAddr(at[0], at[1], at[2], 4), word(0x12345678)) // goes nowhere
	}
	// Accesses that are none: unaligned, too wide, or with CF8 disabled.
	for _, c := range []struct {
		addr uint64
		size int
	}{{ecamAddr(0, 1, 0, 1), 2}, {ecamAddr(0, 1, 0, 2), 4}, {ecamAddr(0, 1, 0, 0), 8}, {ecamAddr(0, 1, 0, 4095), 2}} {
		p := make([]byte, c.size)
		r.mmio.Read(c.addr, p)
		if !bytes.Equal(p, bytes.Repeat([]byte{0xff}, c.size)) {
			t.Errorf("%d bytes at %#x: % x", c.size, c.addr, p)
		}
		before := r.byECAM(0, 1, 0, 0, 4)
		r.mmio.Write(c.addr, make([]byte, c.size))
		if after := r.byECAM(0, 1, 0, 0, 4); !bytes.Equal(before, after) {
			t.Errorf("a write of %d bytes at %#x changed % x to % x", c.size, c.addr, before, after)
		}
	}
	p := make([]byte, 4)
	r.ports.Write(0xcf8, word(1<<11)) // slot 1, not enabled
	if r.ports.Read(0xcfc, p); !bytes.Equal(p, ones) {
		t.Errorf("with CF8 disabled: % x", p)
	}
	if r.ports.Read(0xcff, p); !bytes.Equal(p, ones) {
		t.Errorf("across the end of the ports: % x", p)
	}
}

func TestConfigAddressReadsBack(t *testing.T) {
	r := newPCIRig(t)
	r.ports.Write(0xcf8, word(0x80000813))
	p := make([]byte, 4)
	if r.ports.Read(0xcf8, p); !bytes.Equal(p, word(0x80000810)) {
		t.Errorf("CF8 reads % x", p)
	}
	r.ports.Write(0xcf8, []byte{1, 2}) // only dwords are the register (PCI 3.0, 3.2.2.3.2)
	if r.ports.Read(0xcf8, p); !bytes.Equal(p, word(0x80000810)) {
		t.Errorf("CF8 reads % x after a write of 16 bits", p)
	}
}

func TestResetByCF9(t *testing.T) {
	r := newPCIRig(t)
	for _, c := range []struct {
		port   uint64
		p      []byte
		resets int
	}{
		{0xcf9, []byte{0x02}, 0}, // what kind of reset, not yet the reset
		{0xcf9, []byte{0x06}, 1},
		{0xcf9, []byte{0x0e}, 2},
		{0xcf9, []byte{0x04}, 3},
		{0xcf8, word(0x80000600), 3}, // the address register's second byte is something else
		{0xcfa, []byte{0x06}, 3},
		{0xcfd, []byte{0x06}, 3},
	} {
		if r.ports.Write(c.port, c.p); r.resets != c.resets {
			t.Errorf("after % x to %#x: %d resets, want %d", c.p, c.port, r.resets, c.resets)
		}
	}
}

// Every disk has a place of its own, none on the host bridge's.
func TestPlace(t *testing.T) {
	taken := map[[2]int]int{}
	for i := range MaxDisks {
		slot, fn := place(i)
		if slot < 1 || slot > diskDevices || fn < 0 || fn > 7 {
			t.Errorf("disk %d: slot %d, function %d", i, slot, fn)
		}
		if j, ok := taken[[2]int{slot, fn}]; ok {
			t.Errorf("disks %d and %d share slot %d, function %d", j, i, slot, fn)
		}
		taken[[2]int{slot, fn}] = i
		if _, ok := taken[[2]int{slot, 0}]; !ok {
			t.Errorf("disk %d is function %d of slot %d, which has no function 0", i, fn, slot)
		}
	}
	for i, want := range map[int][2]int{0: {1, 0}, 29: {30, 0}, 30: {1, 1}, 59: {30, 1}, 60: {1, 2}, 63: {4, 2}} {
		if slot, fn := place(i); [2]int{slot, fn} != want {
			t.Errorf("disk %d: slot %d, function %d; want %v", i, slot, fn, want)
		}
	}
}

// As many functions as there can be: BARs apart, aligned, within the window,
// decoded, and each leads to its own function.
func TestBARs(t *testing.T) {
	r := newPCIRig(t)
	var functions []*fakeFunction
	for i := range MaxDisks {
		slot, fn := place(i)
		f := newFake(r.bus, uint16(i), 16, 0x80000, 0, 0x1000, 0, 0x100)
		functions = append(functions, f)
		r.add(slot, fn, f)
	}
	type span struct{ from, to uint64 }
	var spans []span
	for i, f := range functions {
		slot, fn := place(i)
		if cmd := binary.LittleEndian.Uint16(r.byPort(0, slot, fn, 4, 2)); cmd&pci.CommandMemory == 0 {
			t.Errorf("function %d doesn't decode memory: command %#x", i, cmd)
		}
		for _, bar := range []int{0, 1, 3, 5} {
			addr := uint64(binary.LittleEndian.Uint32(r.byECAM(0, slot, fn, 0x10+4*bar, 4)))
			size := f.BARSize(bar)
			if addr%max(size, 4096) != 0 || addr < mmioStart || addr+size > mmioEnd {
				t.Errorf("function %d, BAR %d of %#x bytes at %#x", i, bar, size, addr)
			}
			for _, s := range spans {
				if addr < s.to && addr+max(size, 4096) > s.from {
					t.Errorf("function %d, BAR %d at %#x lies in %#x-%#x", i, bar, addr, s.from, s.to)
				}
			}
			spans = append(spans, span{addr, addr + max(size, 4096)})

			p := make([]byte, 4)
			r.mmio.Read(addr+size-4, p)
			if want := fmt.Sprintf("read %d+%#x", bar, size-4); f.last != want || p[1] != byte(size-4)+1 {
				t.Errorf("function %d saw %q and answered % x, want %q", i, f.last, p, want)
			}
			r.mmio.Write(addr, []byte{1, 2})
			if want := fmt.Sprintf("write %d+0x0: 0102", bar); f.last != want {
				t.Errorf("function %d saw %q, want %q", i, f.last, want)
			}
		}
	}
}

func TestBARsThatDoNotFit(t *testing.T) {
	r := newPCIRig(t)
	r.add(1, 0, newFake(r.bus, 1, 256<<20))
	r.add(2, 0, newFake(r.bus, 2, 128<<20))
	if err := r.bus.add(3, 0, newFake(r.bus, 3, 128<<20)); err == nil {
		t.Error("a BAR behind the window")
	}
}

// A driver moves a BAR as Linux does when it asks for the size.
func TestBARMoves(t *testing.T) {
	r := newPCIRig(t)
	f := newFake(r.bus, 1, 0x1000)
	r.add(1, 0, f)
	const command, bar0 = 4, 0x10
	old := uint64(binary.LittleEndian.Uint32(r.byECAM(0, 1, 0, bar0, 4)))
	r.mmio.Write(ecamAddr(0, 1, 0, command), []byte{0, 0})
	r.mmio.Write(ecamAddr(0, 1, 0, bar0), word(0xffffffff))
	if size := -binary.LittleEndian.Uint32(r.byECAM(0, 1, 0, bar0, 4)); size != 0x1000 {
		t.Errorf("size %#x", size)
	}
	r.mmio.Write(ecamAddr(0, 1, 0, bar0), word(0xd0000000))
	r.mmio.Write(ecamAddr(0, 1, 0, command), []byte{pci.CommandMemory, 0})
	p := make([]byte, 1)
	if r.mmio.Read(old, p); p[0] != 0xff || f.last != "" {
		t.Errorf("the old place answers %#x, the function saw %q", p, f.last)
	}
	if r.mmio.Read(0xd0000010, p); p[0] != 0x10 {
		t.Errorf("the new place answers %#x", p)
	}
}

// Without the bit in function 0 a guest doesn't look for the others (PCI 3.0, 6.2.1).
func TestMultifunctionBit(t *testing.T) {
	r := newPCIRig(t)
	r.add(1, 0, newFake(r.bus, 1))
	r.add(2, 0, newFake(r.bus, 2))
	r.add(2, 1, newFake(r.bus, 3))
	for at, want := range map[[2]int]byte{{0, 0}: 0, {1, 0}: 0, {2, 0}: 0x80, {2, 1}: 0} {
		if got := r.byPort(0, at[0], at[1], 0x0e, 1)[0]; got != want {
			t.Errorf("slot %d, function %d: header type %#x, want %#x", at[0], at[1], got, want)
		}
	}
}

// What is in a slot answers on the bus the guest gave to the slot's port.
func TestBehindRootPorts(t *testing.T) {
	r := newPCIRig(t)
	slots := make([]*slot, 2)
	for i := range slots {
		s := newSlotRig(t).slot
		slots[i] = s
		if err := r.bus.addSlot(i, s); err != nil {
			t.Fatal(err)
		}
		if err := s.preset(&disk{}); err != nil {
			t.Fatal(err)
		}
	}
	device, _ := portPlace(0)
	if header := r.byPort(0, device, 0, 0x0e, 1)[0]; header != 0x81 {
		t.Errorf("header type %#x, want a bridge with more functions", header)
	}
	for i := range slots {
		device, fn := portPlace(i)
		if window := r.byPort(0, device, fn, 0x20, 4); uint64(binary.LittleEndian.Uint16(window))<<16 != slotWindow(i) {
			t.Errorf("window % x, want %#x", window, slotWindow(i))
		}
	}
	number := func(i int, bus byte) {
		device, fn := portPlace(i)
		r.mmio.Write(ecamAddr(0, device, fn, 0x19), []byte{bus})
	}
	// The vendor behind each bus; straw devices have vendor 1.
	want := func(what string, vendors map[int]uint32) {
		t.Helper()
		for bus := 1; bus <= MaxHotplugSlots; bus++ {
			vendor, ok := vendors[bus]
			if !ok {
				vendor = 0xffff
			}
			for _, at := range [][2]int{{0, 0}, {1, 0}, {0, 1}} {
				v := vendor
				if at != [2]int{0, 0} {
					v = 0xffff // one device, one function
				}
				for _, got := range [][]byte{r.byPort(bus, at[0], at[1], 0, 2), r.byECAM(bus, at[0], at[1], 0, 2)} {
					if uint32(binary.LittleEndian.Uint16(got)) != v {
						t.Errorf("%s: bus %d, device %d, function %d: % x, want %#x", what, bus, at[0], at[1], got, v)
					}
				}
			}
		}
	}
	want("no numbers", nil)
	number(0, 1)
	number(1, 2)
	want("numbers", map[int]uint32{1: 1, 2: 1})
	number(0, 5)
	want("another number", map[int]uint32{5: 1, 2: 1})
}
