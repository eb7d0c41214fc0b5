package pci_test

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"github.com/ebb-vmm/ebb/virtio/pci"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// function is a Function made of a Config and one BAR of plain bytes.
type function struct {
	*pci.Config
	mu     sync.Mutex
	ram    [4096]byte
	moved  []uint64
	failed []uint64
}

func (f *function) ReadConfig(off int, p []byte)  { f.Read(off, p) }
func (f *function) WriteConfig(off int, p []byte) { f.Write(off, p) }
func (f *function) ReadBAR(_ int, off uint64, p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(p, f.ram[off:])
}
func (f *function) WriteBAR(_ int, off uint64, p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(f.ram[off:], p)
}

var testID = pci.ID{Vendor: 0x1234, Device: 0x5678, SubsystemVendor: 0x9abc, SubsystemDevice: 0xdef0, Revision: 7, Class: 0x018042}

func newFunction(h *virtiotest.Host) *function {
	f := &function{Config: pci.NewConfig(testID)}
	f.AddBAR(2, 4096)
	f.Bind(pci.Binding{
		Function: f, Host: h,
		Moved:  func(_ int, addr uint64) { f.moved = append(f.moved, addr) },
		Failed: func(_ int, addr uint64, _ error) { f.failed = append(f.failed, addr) },
	})
	return f
}

func get(f pci.Function, off, width int) uint32 {
	var b [4]byte
	f.ReadConfig(off, b[:width])
	return binary.LittleEndian.Uint32(b[:])
}

func set(f pci.Function, off, width int, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	f.WriteConfig(off, b[:width])
}

func TestHeader(t *testing.T) {
	f := newFunction(virtiotest.NewHost(t))
	for _, c := range []struct {
		name       string
		off, width int
		want       uint32
	}{
		{"vendor and device", 0x00, 4, 0x56781234},
		{"command", 0x04, 2, 0},
		{"status, no capabilities", 0x06, 2, 0},
		{"revision and class", 0x08, 4, 0x01804207},
		{"header type", 0x0e, 1, 0},
		{"subsystem", 0x2c, 4, 0xdef09abc},
		{"expansion ROM", 0x30, 4, 0},
		{"interrupt pin", 0x3d, 1, 0},
		{"last byte", 0xff, 1, 0},
		{"extended configuration space", 0x100, 4, 0},
		{"its end", 0xffc, 4, 0},
	} {
		if got := get(f, c.off, c.width); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	// A read across the end of the 256 bytes.
	b := []byte{1, 1, 1, 1}
	f.ReadConfig(0xfe, b)
	if binary.LittleEndian.Uint32(b) != 0 {
		t.Errorf("read across the end: %x", b)
	}
}

// Every bit a guest may not change stays as it is, whatever it writes.
func TestWriteMasks(t *testing.T) {
	f := newFunction(virtiotest.NewHost(t))
	var before, after [256]byte
	f.ReadConfig(0, before[:])
	for off := 0; off < 4096; off += 4 {
		if off == 0x04 || off == 0x18 { // command, BAR 2
			continue
		}
		set(f, off, 4, 0xffffffff)
	}
	f.ReadConfig(0, after[:])
	after[0x3c] = before[0x3c] // interrupt line
	if before != after {
		t.Errorf("read-only bytes changed:\n%x\n%x", before, after)
	}
	set(f, 0x04, 2, 0xffff)
	if got := get(f, 0x04, 2); got != pci.CommandMemory|pci.CommandBusMaster|pci.CommandINTxDisable {
		t.Errorf("command register: %#x", got)
	}
	if got := get(f, 0x06, 2); got != 0 {
		t.Errorf("status register changed to %#x by a write to the command register", got)
	}
}

func TestBARSizing(t *testing.T) {
	h := virtiotest.NewHost(t)
	f := newFunction(h)
	for bar, want := range map[int]uint32{0: 0, 1: 0, 2: 0xfffff000, 3: 0, 4: 0, 5: 0} {
		set(f, 0x10+4*bar, 4, 0xffffffff)
		if got := get(f, 0x10+4*bar, 4); got != want {
			t.Errorf("BAR %d reads %#x after all ones, want %#x", bar, got, want)
		}
		set(f, 0x10+4*bar, 4, 0)
	}
	if f.BARSize(2) != 4096 || f.BARSize(1) != 0 || f.BARSize(-1) != 0 || f.BARSize(6) != 0 {
		t.Error("BARSize")
	}
}

func TestBARMapping(t *testing.T) {
	h := virtiotest.NewHost(t)
	f := newFunction(h)
	at := func(when string, want uint64) {
		t.Helper()
		if got := h.BAR(f, 2); got != want || f.BARAddr(2) != want {
			t.Errorf("%s: mapped at %#x (BARAddr %#x), want %#x", when, got, f.BARAddr(2), want)
		}
	}
	set(f, 0x18, 4, 0xe0000000)
	at("address without decoding", 0)
	set(f, 0x04, 2, pci.CommandMemory)
	at("decoding on", 0xe0000000)
	h.Store(0xe0000010, []byte{42})
	var b [1]byte
	if h.Load(0xe0000010, b[:]); b[0] != 42 {
		t.Errorf("BAR access read %d", b[0])
	}
	set(f, 0x04, 2, pci.CommandMemory|pci.CommandBusMaster)
	at("bus mastering on", 0xe0000000)
	set(f, 0x18, 4, 0xffffffff)
	at("sizing while decoding", 0)
	set(f, 0x18, 4, 0xe0001000)
	at("moved", 0xe0001000)
	set(f, 0x1a, 2, 0xe002) // the upper half alone
	at("upper half written", 0xe0021000)
	set(f, 0x18, 4, 0)
	at("address 0", 0)
	set(f, 0x18, 4, 0xe0000fff)
	at("low bits are not writable", 0xe0000000)
	set(f, 0x04, 2, 0)
	at("decoding off", 0)
	want := []uint64{0xe0000000, 0, 0xe0001000, 0, 0xe0021000, 0, 0xe0000000, 0}
	if len(f.moved) != len(want) {
		t.Fatalf("moves told: %#x, want %#x", f.moved, want)
	}
	for i := range want {
		if f.moved[i] != want[i] {
			t.Fatalf("moves told: %#x, want %#x", f.moved, want)
		}
	}
}

func TestBARRefused(t *testing.T) {
	h := virtiotest.NewHost(t)
	f := newFunction(h)
	h.RefuseBARs(errors.New("taken"))
	set(f, 0x18, 4, 0xe0000000)
	set(f, 0x04, 2, pci.CommandMemory)
	if f.BARAddr(2) != 0 || len(f.moved) != 0 || len(f.failed) != 1 || f.failed[0] != 0xe0000000 {
		t.Errorf("after a refusal: mapped at %#x, moves %#x, failures %#x", f.BARAddr(2), f.moved, f.failed)
	}
	h.RefuseBARs(nil)
	set(f, 0x18, 4, 0xe0001000)
	if f.BARAddr(2) != 0xe0001000 {
		t.Errorf("mapped at %#x after the refusal", f.BARAddr(2))
	}
}

func TestCapabilities(t *testing.T) {
	c := pci.NewConfig(testID)
	wrote := 0
	first := c.AddCapability(pci.Capability{ID: 0x09, Body: []byte{1, 2, 3}})
	second := c.AddCapability(pci.Capability{ID: 0x11, Body: []byte{4, 5}, Writable: []byte{0xf0}, Written: func() { wrote++ }})
	f := pci.Bare{Config: c}
	c.Bind(pci.Binding{Function: f, Host: virtiotest.NewHost(t)})
	if get(f, 0x06, 2)&0x10 == 0 {
		t.Error("status has no capability list bit")
	}
	if int(get(f, 0x34, 1)) != first || int(get(f, first+1, 1)) != second || get(f, second+1, 1) != 0 {
		t.Error("chain is broken")
	}
	if first%4 != 0 || second%4 != 0 || get(f, first, 1) != 0x09 || get(f, second, 1) != 0x11 {
		t.Error("capabilities are misplaced")
	}
	set(f, first, 4, 0xffffffff)
	set(f, second, 4, 0xffffffff)
	if got := get(f, second+2, 2); got != 0x05f4 {
		t.Errorf("body after a write: %#x", got)
	}
	if get(f, first+2, 2) != 0x0201 || get(f, second, 1) != 0x11 {
		t.Error("read-only bytes of a capability changed")
	}
	if wrote != 1 {
		t.Errorf("Written was called %d times", wrote)
	}
}

func TestBareFunction(t *testing.T) {
	b := pci.Bare{Config: pci.NewConfig(pci.ID{Vendor: 0x8086, Device: 0x1237, Class: 0x060000})}
	b.SetMultifunction(true)
	set(b, 0x04, 2, 0xffff) // no binding: nothing happens
	if get(b, 0, 4) != 0x12378086 || get(b, 0x0e, 1) != 0x80 || b.BARSize(0) != 0 {
		t.Error("bare function reads wrong")
	}
	p := []byte{1}
	b.WriteBAR(0, 0, p)
	if b.ReadBAR(0, 0, p); p[0] != 0 {
		t.Error("a BAR that isn't there reads as ones")
	}
	b.SetMultifunction(false)
	if get(b, 0x0e, 1) != 0 {
		t.Error("multifunction bit stays")
	}
}

// Several vCPUs move and size a BAR and read the header; at the end the mapping
// follows the registers.
func TestConcurrentConfig(t *testing.T) {
	h := virtiotest.NewHost(t)
	f := newFunction(h)
	f.Bind(pci.Binding{Function: f, Host: h})
	var wg sync.WaitGroup
	for cpu := range 4 {
		wg.Go(func() {
			for i := range 500 {
				set(f, 0x18, 4, 0xe0000000+uint32(cpu*500+i)<<12)
				set(f, 0x04, 2, uint32(i%2)*pci.CommandMemory)
				get(f, 0x18, 4)
			}
		})
	}
	wg.Wait()
	want := uint64(0)
	if f.Command()&pci.CommandMemory != 0 {
		want = uint64(get(f, 0x18, 4))
	}
	if got := h.BAR(f, 2); got != want {
		t.Errorf("mapped at %#x, registers say %#x", got, want)
	}
}

// A window gets what is written to its last four bytes, and provides what is read.
func TestWindow(t *testing.T) {
	c := pci.NewConfig(testID)
	var stored []byte
	at := c.AddCapability(pci.Capability{
		ID: 0x09, Body: make([]byte, 6), Writable: []byte{0xff, 0, 0xff, 0xff, 0xff, 0xff},
		Window: func(write bool, p []byte) {
			if write {
				stored = append([]byte(nil), p...)
			} else {
				copy(p, "ebb!")
			}
		},
	})
	f := pci.Bare{Config: c}
	c.Bind(pci.Binding{Function: f, Host: virtiotest.NewHost(t)})
	set(f, at, 4, 0x00ff0000) // not the window
	if stored != nil || get(f, at+2, 1) != 0xff {
		t.Error("an access beside the window reached it")
	}
	set(f, at+4, 4, 0x11223344)
	if string(stored) != "\x44\x33\x22\x11" {
		t.Errorf("stored %x", stored)
	}
	if got := get(f, at+6, 2); got != 0x2162 { // "b!"
		t.Errorf("half of the window reads %#x", got)
	}
}
