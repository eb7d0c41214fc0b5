package virtio_test

import (
	"testing"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// 4.1.2: identity of a non-transitional device.
func TestPCIIdentity(t *testing.T) {
	d := newRig(t).d
	if got := d.Cfg(0x00, 4); got != 0x1042_1af4 {
		t.Errorf("device and vendor %#x", got)
	}
	if rev := d.Cfg(0x08, 1); rev < 1 {
		t.Errorf("revision %d", rev)
	}
	if got := d.Cfg(0x09, 4) & 0xffffff; got != 0x018000 {
		t.Errorf("class %#x", got)
	}
	if sub := d.Cfg(0x2c, 4); sub&0xffff != 0x1af4 || sub>>16 < 0x40 {
		t.Errorf("subsystem %#x", sub)
	}
	if pin := d.Cfg(0x3d, 1); pin != 0 {
		t.Errorf("interrupt pin %d", pin)
	}
}

// 4.1.4: every structure is there, aligned, inside the BAR, and none overlaps another.
func TestPCICapabilities(t *testing.T) {
	r := newRig(t, 16, 16, 16)
	d := r.d
	type area struct{ from, to uint64 }
	var areas []area
	for typ, min := range map[uint8]uint64{virtiotest.CommonCfg: 56, virtiotest.NotifyCfg: 3 * 4, virtiotest.ISRCfg: 1, virtiotest.DeviceCfg: 60} {
		c := d.Structure(typ)
		if c.Bar != 0 || c.Off%4 != 0 || c.Len < min || c.Off+c.Len > r.pci.BARSize(0) {
			t.Errorf("structure %d: %+v", typ, c)
		}
		if n := d.Cfg(c.Offset+2, 1); n < 16 {
			t.Errorf("structure %d: cap_len %d", typ, n)
		}
		areas = append(areas, area{c.Off, c.Off + c.Len})
	}
	areas = append(areas,
		area{uint64(d.Cfg(d.MSIX+4, 4) &^ 7), uint64(d.Cfg(d.MSIX+4, 4)&^7) + uint64(16*d.NumVectors())},
		area{uint64(d.Cfg(d.MSIX+8, 4) &^ 7), uint64(d.Cfg(d.MSIX+8, 4)&^7) + 8})
	for i, a := range areas {
		for _, b := range areas[:i] {
			if a.from < b.to && b.from < a.to {
				t.Errorf("%#x and %#x overlap", a, b)
			}
		}
	}
	n := d.Structure(virtiotest.NotifyCfg)
	if n.Mult != 4 || d.Cfg(n.Offset+2, 1) != 20 {
		t.Errorf("notify capability %+v", n)
	}
	if d.NumVectors() != 4 {
		t.Errorf("%d MSI-X vectors for 3 queues", d.NumVectors())
	}
	d.Structure(virtiotest.PCICfg)
	for i := range 3 {
		d.Set(virtiotest.QueueSelect, uint64(i))
		if got := d.Get(virtiotest.QueueNotifyOff); got != uint64(i) {
			t.Errorf("queue %d: notify offset %d", i, got)
		}
	}
}

func TestNewPCIRefusesQueues(t *testing.T) {
	mem, host := virtiotest.NewMemory(t), virtiotest.NewHost(t)
	for _, sizes := range [][]uint16{{}, {0}, {3}, {32769}, make([]uint16, virtio.MaxQueues+1)} {
		if _, err := virtio.NewPCI(&testDevice{sizes: sizes}, mem, host, nil); err == nil {
			t.Errorf("%d queues, first sizes %v: no error", len(sizes), sizes[:min(len(sizes), 1)])
		}
	}
}

// 4.1.4.9: the whole BAR through a window in configuration space.
func TestPCIConfigAccess(t *testing.T) {
	r := newRig(t)
	d := r.d
	w := d.Structure(virtiotest.PCICfg)
	window := func(bar uint32, off uint64, n uint32) {
		d.SetCfg(w.Offset+4, 1, bar)
		d.SetCfg(w.Offset+8, 4, uint32(off))
		d.SetCfg(w.Offset+12, 4, n)
	}
	common := d.Structure(virtiotest.CommonCfg).Off
	window(0, common+virtiotest.NumQueues.Off, 2)
	if got := d.Cfg(w.Offset+16, 2); got != 1 {
		t.Errorf("num_queues through the window: %d", got)
	}
	window(0, common+virtiotest.DeviceStatus.Off, 1)
	d.SetCfg(w.Offset+16, 1, 1)
	if d.Status() != 1 {
		t.Errorf("status %#x after ACKNOWLEDGE through the window", d.Status())
	}
	window(0, common+virtiotest.QueueDesc.Off, 4)
	d.SetCfg(w.Offset+16, 4, 0x12345670)
	if got := d.Get(virtiotest.QueueDesc); got != 0x12345670 {
		t.Errorf("queue_desc %#x", got)
	}
	if got := d.Cfg(w.Offset+16, 4); got != 0x12345670 {
		t.Errorf("queue_desc through the window: %#x", got)
	}
	// What points nowhere does nothing.
	for _, bad := range []struct {
		bar uint32
		off uint64
		n   uint32
	}{{1, 0, 4}, {0, r.pci.BARSize(0), 4}, {0, r.pci.BARSize(0) - 2, 4}, {0, 1, 2}, {0, 0, 3}, {0, 0, 0}, {0, 0, 8}, {0, 0xffff_fffc, 4}} {
		window(bad.bar, bad.off, bad.n)
		d.SetCfg(w.Offset+16, 4, 0xffffffff)
		d.Cfg(w.Offset+16, 4)
	}
	if d.Status() != 1 || d.Get(virtiotest.QueueDesc) != 0x12345670 {
		t.Error("an impossible window changed something")
	}
}
