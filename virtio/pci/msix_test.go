package pci_test

import (
	"encoding/binary"
	"sync"
	"testing"

	"github.com/ebb-vmm/ebb/virtio/pci"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

const msixEnable, msixMaskAll = 1 << 15, 1 << 14

type msixRig struct {
	*testing.T
	h      *virtiotest.Host
	c      *pci.Config
	f      pci.Bare
	m      *pci.MSIX
	errors int
}

func newMSIX(t *testing.T, n int) *msixRig {
	r := &msixRig{T: t, h: virtiotest.NewHost(t), c: pci.NewConfig(testID)}
	r.f = pci.Bare{Config: r.c}
	r.m = pci.NewMSIX(r.c, r.h, n, 1, 0x4000, 0x7000, func(error) { r.errors++ })
	r.c.Bind(pci.Binding{Function: r.f, Host: r.h, Command: r.m.Update})
	set(r.f, 0x04, 2, pci.CommandBusMaster)
	t.Cleanup(func() {
		if err := r.m.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *msixRig) control(v uint32) { set(r.f, 0x42, 2, v) }

func (r *msixRig) entry(i int, data uint32, masked bool) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[0:], virtiotest.MSIAddr)
	binary.LittleEndian.PutUint32(b[8:], data)
	if masked {
		b[12] = 1
	}
	for off := 0; off < 16; off += 4 {
		r.m.WriteTable(uint64(16*i+off), b[off:off+4])
	}
}

func (r *msixRig) pba() uint64 {
	var b [8]byte
	r.m.ReadPBA(0, b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// expect checks what arrived at the line with that message data since last asked.
func (r *msixRig) expect(what string, data uint32, n int, pba uint64) {
	r.Helper()
	got := 0
	if v := r.h.Vector(data); v != nil {
		got = v.Take()
	}
	if got != n || r.pba() != pba {
		r.Errorf("%s: %d interrupts and PBA %#x, want %d and %#x", what, got, r.pba(), n, pba)
	}
}

func TestMSIXCapability(t *testing.T) {
	r := newMSIX(t, 5)
	if get(r.f, 0x40, 1) != 0x11 || get(r.f, 0x42, 2) != 4 || get(r.f, 0x44, 4) != 0x4001 || get(r.f, 0x48, 4) != 0x7001 {
		t.Error("capability reads wrong")
	}
	set(r.f, 0x42, 2, 0xffff)
	if got := get(r.f, 0x42, 2); got != msixEnable|msixMaskAll|4 {
		t.Errorf("control word %#x after all ones", got)
	}
	var p [8]byte
	for i := range 5 { // every entry starts masked and empty
		r.m.ReadTable(uint64(16*i+8), p[:])
		if p != [8]byte{4: 1} {
			t.Errorf("entry %d: %x", i, p)
		}
	}
}

func TestMSIXDelivery(t *testing.T) {
	r := newMSIX(t, 2)
	r.m.Signal(1)
	r.control(msixEnable)
	r.expect("signal before MSI-X is enabled is lost, not kept", 7, 0, 0)
	r.entry(1, 7, false)
	r.m.Signal(1)
	r.expect("open", 7, 1, 0)
	r.m.Signal(0)
	r.expect("other vector is masked", 7, 0, 1)
	r.m.Signal(pci.NoVector)
	r.m.Signal(2)
	r.expect("no such vector", 7, 0, 1)
}

func TestMSIXVectorMask(t *testing.T) {
	r := newMSIX(t, 2)
	r.control(msixEnable)
	r.entry(1, 7, false)
	r.m.WriteTable(16+12, []byte{1, 0, 0, 0})
	r.m.Signal(1)
	r.m.Signal(1)
	r.expect("masked", 7, 0, 2)
	r.m.WriteTable(16+12, []byte{0, 0, 0, 0})
	r.expect("unmasked: delivered once", 7, 1, 0)
	r.m.Signal(1)
	r.expect("open again", 7, 1, 0)
}

// Linux moves an interrupt by masking, rewriting and unmasking the entry.
func TestMSIXMovedWhilePending(t *testing.T) {
	r := newMSIX(t, 1)
	r.control(msixEnable)
	r.entry(0, 7, false)
	r.m.WriteTable(12, []byte{1, 0, 0, 0})
	r.m.Signal(0)
	r.entry(0, 9, true)
	r.expect("still masked", 9, 0, 1)
	r.m.WriteTable(12, []byte{0, 0, 0, 0})
	r.expect("delivered with the new message", 9, 1, 0)
	if v := r.h.Vector(7); v != nil {
		t.Error("old message is still routed")
	}
}

func TestMSIXFunctionMask(t *testing.T) {
	r := newMSIX(t, 1)
	r.control(msixEnable | msixMaskAll)
	r.entry(0, 7, false)
	r.m.Signal(0)
	r.expect("function masked", 7, 0, 1)
	r.control(msixEnable)
	r.expect("function unmasked", 7, 1, 0)
	r.control(msixEnable | msixMaskAll)
	r.m.Signal(0)
	r.control(0)
	r.control(msixEnable)
	r.expect("disabling forgets what was pending", 7, 0, 0)
}

func TestMSIXNeedsBusMaster(t *testing.T) {
	r := newMSIX(t, 1)
	r.control(msixEnable)
	r.entry(0, 7, false)
	set(r.f, 0x04, 2, 0)
	r.m.Signal(0)
	r.expect("bus mastering off", 7, 0, 1)
	set(r.f, 0x04, 2, pci.CommandBusMaster)
	r.expect("bus mastering on", 7, 1, 0)
}

func TestMSIXNoLine(t *testing.T) {
	r := newMSIX(t, 2)
	r.h.LimitVectors(1)
	if err := r.m.Allocate(0); err != nil {
		t.Fatal(err)
	}
	if err := r.m.Allocate(0); err != nil || r.h.Vectors() != 1 {
		t.Fatalf("second Allocate: %v, %d lines", err, r.h.Vectors())
	}
	if r.m.Allocate(1) == nil || r.m.Allocate(2) == nil {
		t.Error("Allocate without a line, or of no entry, succeeds")
	}
	r.control(msixEnable)
	r.entry(1, 7, false)
	r.m.Signal(1)
	r.expect("vector without a line stays pending", 7, 0, 2)
	if r.errors == 0 {
		t.Error("nobody was told")
	}
}

func TestMSIXTableAccess(t *testing.T) {
	r := newMSIX(t, 1)
	r.m.WriteTable(0, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	var p [8]byte
	if r.m.ReadTable(0, p[:]); p != [8]byte{0, 2, 3, 4, 5, 6, 7, 8} {
		t.Errorf("8-byte access: %x (the two low address bits are 0)", p)
	}
	for _, bad := range []struct {
		off uint64
		n   int
	}{{0, 1}, {0, 2}, {2, 4}, {4, 8}, {16, 4}, {12, 8}} {
		r.m.WriteTable(bad.off, []byte{9, 9, 9, 9, 9, 9, 9, 9}[:bad.n])
		q := []byte{1, 1, 1, 1, 1, 1, 1, 1}[:bad.n]
		r.m.ReadTable(bad.off, q)
		for _, b := range q {
			if b != 0 {
				t.Errorf("access %+v reads %x", bad, q)
				break
			}
		}
	}
	if r.m.ReadTable(0, p[:]); p != [8]byte{0, 2, 3, 4, 5, 6, 7, 8} {
		t.Errorf("a bad access changed the entry to %x", p)
	}
}

// The route costs an ioctl: it is set when the message changes, not at every unmask.
func TestMSIXRouteOnlyOnChange(t *testing.T) {
	r := newMSIX(t, 1)
	r.control(msixEnable)
	r.entry(0, 7, false)
	for range 10 {
		r.m.WriteTable(12, []byte{1, 0, 0, 0})
		r.m.WriteTable(12, []byte{0, 0, 0, 0})
	}
	if n := r.h.Vector(7).RouteSets(); n != 1 {
		t.Errorf("route set %d times", n)
	}
}

func TestMSIXSignalAllocates(t *testing.T) {
	r := newMSIX(t, 1)
	r.control(msixEnable)
	r.entry(0, 7, false)
	if n := testing.AllocsPerRun(1000, func() { r.m.Signal(0) }); n != 0 {
		t.Errorf("Signal allocates %v times", n)
	}
}

// Signals race with masking: whatever is signalled before an unmask is delivered by it at the latest.
func TestMSIXNoLostInterrupt(t *testing.T) {
	r := newMSIX(t, 1)
	r.control(msixEnable)
	r.entry(0, 7, false)
	v := r.h.Vector(7)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				r.m.WriteTable(12, []byte{byte(i % 2), 0, 0, 0})
				if i%16 == 0 {
					r.control(msixEnable | uint32(i/16%2)*msixMaskAll)
				}
			}
		}
	})
	for range 2000 {
		r.m.Signal(0)
		if !v.Wait(virtiotest.Deadline) {
			t.Error("interrupt lost")
			break
		}
	}
	close(stop)
	wg.Wait()
}
