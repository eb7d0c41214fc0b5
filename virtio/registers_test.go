package virtio_test

import (
	"bytes"
	"testing"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// 4.1.4.3: the common configuration's fields, 64-bit ones as halves.
func TestCommonConfig(t *testing.T) {
	r := newRig(t, 16, 256)
	d := r.d
	if got := d.Get(virtiotest.NumQueues); got != 2 {
		t.Errorf("num_queues %d", got)
	}
	d.Set(virtiotest.QueueSelect, 1)
	if got := d.Get(virtiotest.QueueSize); got != 256 {
		t.Errorf("queue_size %d", got)
	}
	for i, f := range []virtiotest.Field{virtiotest.QueueDesc, virtiotest.QueueDriver, virtiotest.QueueDevice} {
		v := 0x1122334455667700 + uint64(i)<<4
		d.Set(f, v)
		if got := d.Get(f); got != v {
			t.Errorf("field at %#x: %#x, want %#x", f.Off, got, v)
		}
		d.Set(virtiotest.Field{Off: f.Off + 4, Width: 4}, 0xaabbccdd)
		if got := d.Get(f); got != 0xaabbccdd<<32|v&0xffffffff {
			t.Errorf("field at %#x after its upper half was written: %#x", f.Off, got)
		}
	}
	// The other queue has fields of its own.
	d.Set(virtiotest.QueueSelect, 0)
	if d.Get(virtiotest.QueueDesc) != 0 || d.Get(virtiotest.QueueSize) != 16 {
		t.Error("queue 0 changed with queue 1")
	}
	// A queue that doesn't exist is unavailable.
	d.Set(virtiotest.QueueSelect, 2)
	d.Set(virtiotest.QueueDesc, 0x1000)
	d.Set(virtiotest.QueueEnable, 1)
	if d.Get(virtiotest.QueueSize) != 0 || d.Get(virtiotest.QueueEnable) != 0 || d.Get(virtiotest.QueueDesc) != 0 {
		t.Error("queue 2 of 2 exists")
	}
}

// 4.1.3.1: fields are accessed with their own width; anything else must do no harm.
func TestCommonConfigWidths(t *testing.T) {
	r := newRig(t)
	d := r.d
	at := d.At(virtiotest.CommonCfg)
	var word [4]byte
	r.host.Load(at+virtiotest.ConfigVector.Off, word[:])
	if word != [4]byte{0xff, 0xff, 1, 0} {
		t.Errorf("one load of two 16-bit fields: %x", word)
	}
	var quad [8]byte
	r.host.Store(at+virtiotest.QueueDesc.Off, []byte{0, 0x10, 0, 0, 1, 0, 0, 0})
	if r.host.Load(at+virtiotest.QueueDesc.Off, quad[:]); quad != [8]byte{0, 0x10, 0, 0, 1, 0, 0, 0} {
		t.Errorf("64-bit field at once: %x", quad)
	}
	before := make([]byte, 56)
	after := make([]byte, 56)
	for i := range before {
		r.host.Load(at+uint64(i), before[i:i+1])
	}
	for off := uint64(0); off < 64; off++ {
		for _, n := range []int{1, 2, 4, 8} {
			if off == virtiotest.DeviceStatus.Off && n == 1 || isField(off, n) {
				continue
			}
			r.host.Store(at+off, bytes.Repeat([]byte{0x5a}, n))
		}
	}
	for i := range after {
		r.host.Load(at+uint64(i), after[i:i+1])
	}
	if !bytes.Equal(before, after) {
		t.Errorf("stores of a wrong width changed\n%x to\n%x", before, after)
	}
}

// isField reports whether a store of n bytes at off hits a writable field as a whole.
func isField(off uint64, n int) bool {
	for _, f := range []virtiotest.Field{
		virtiotest.DeviceFeatureSelect, virtiotest.DriverFeatureSelect, virtiotest.DriverFeature, virtiotest.ConfigVector,
		virtiotest.QueueSelect, virtiotest.QueueSize, virtiotest.QueueVector, virtiotest.QueueEnable,
	} {
		if off == f.Off && n == int(f.Width) {
			return true
		}
	}
	for _, f := range []virtiotest.Field{virtiotest.QueueDesc, virtiotest.QueueDriver, virtiotest.QueueDevice} {
		if off >= f.Off && off < f.Off+8 && (n == 4 || n == 8) && off%uint64(n) == 0 {
			return true
		}
	}
	return false
}

// 2.7, 4.1.4.3.1: what a driver sets up for a queue is checked when it enables it.
func TestQueueEnableChecks(t *testing.T) {
	type f = virtiotest.Field
	for _, c := range []struct {
		name  string
		field f
		value uint64
		ok    bool
	}{
		{"as it should be", virtiotest.QueueSize, 16, true},
		{"smaller", virtiotest.QueueSize, 4, true},
		{"smallest", virtiotest.QueueSize, 1, true},
		{"size 0", virtiotest.QueueSize, 0, false},
		{"size no power of two", virtiotest.QueueSize, 12, false},
		{"size beyond the maximum", virtiotest.QueueSize, 32, false},
		{"descriptors misaligned", virtiotest.QueueDesc, 0x10008, false},
		{"descriptors outside RAM", virtiotest.QueueDesc, 0x2000_0000, false},
		{"descriptors end outside RAM", virtiotest.QueueDesc, 16<<20 - 16, false},
		{"descriptors at the end of the address space", virtiotest.QueueDesc, 0xffff_ffff_ffff_fff0, false},
		{"descriptors above 4 GiB", virtiotest.QueueDesc, 4 << 30, true},
		{"available ring at an odd address", virtiotest.QueueDriver, 0x20001, false},
		{"available ring at 2 mod 4", virtiotest.QueueDriver, 0x20002, true},
		{"available ring ends with RAM", virtiotest.QueueDriver, 16<<20 - (6 + 2*16), true},
		{"available ring ends behind RAM", virtiotest.QueueDriver, 16<<20 - (6 + 2*16) + 2, false},
		{"available ring overflows", virtiotest.QueueDriver, 0xffff_ffff_ffff_fffe, false},
		{"used ring at 2 mod 4", virtiotest.QueueDevice, 0x30002, false},
		{"used ring at 4 mod 8", virtiotest.QueueDevice, 0x30004, true},
		{"used ring ends with RAM", virtiotest.QueueDevice, 16<<20 - (8 + 8*16), true},
		{"used ring ends behind RAM", virtiotest.QueueDevice, 16<<20 - (8 + 8*16) + 4, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newRig(t).d
			d.Negotiate(version1)
			d.Set(virtiotest.QueueDesc, 0x10000)
			d.Set(virtiotest.QueueDriver, 0x20000)
			d.Set(virtiotest.QueueDevice, 0x30000)
			d.Set(c.field, c.value)
			if c.field == virtiotest.QueueSize {
				if got := d.Get(c.field); got != c.value && got != 0 || got&(got-1) != 0 {
					t.Errorf("queue_size reads %d", got)
				}
			}
			d.Set(virtiotest.QueueEnable, 1)
			if got := d.Get(virtiotest.QueueEnable) == 1; got != c.ok {
				t.Errorf("enabled: %v", got)
			}
			if got := d.Status()&virtio.StatusNeedsReset == 0; got != c.ok {
				t.Errorf("status %#x", d.Status())
			}
		})
	}
}

// A queue's configuration is fixed once it is enabled.
func TestEnabledQueueIsFixed(t *testing.T) {
	r := newRig(t)
	q, _ := r.start(0)
	d := r.d
	d.Set(virtiotest.QueueSize, 4)
	d.Set(virtiotest.QueueDesc, 0)
	d.Set(virtiotest.QueueEnable, 0)
	if d.Get(virtiotest.QueueSize) != 16 || d.Get(virtiotest.QueueDesc) != q.Desc || d.Get(virtiotest.QueueEnable) != 1 {
		t.Error("an enabled queue was reconfigured")
	}
}

// 2.5.2: the device configuration is readable at any status, and writable.
func TestDeviceConfig(t *testing.T) {
	r := newRig(t)
	r.dev.config = [16]byte{1, 2, 3, 4, 5, 6, 7, 8}
	if got := r.d.DeviceConfig(0, 8); !bytes.Equal(got, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("before FEATURES_OK: %v", got)
	}
	if got := r.d.DeviceConfig(2, 2); !bytes.Equal(got, []byte{3, 4}) {
		t.Errorf("16-bit read: %v", got)
	}
	if got := r.d.DeviceConfig(100, 4); !bytes.Equal(got, make([]byte, 4)) {
		t.Errorf("beyond the end: %v", got)
	}
	r.d.SetDeviceConfig(8, 9)
	if r.dev.config[8] != 9 {
		t.Error("write did not arrive")
	}
}

// 2.5.1, 4.1.4.3.1: a driver that reads half before and half after a change notices,
// and however many changes there were between two reads, they don't look like none.
func TestConfigGeneration(t *testing.T) {
	r := newRig(t)
	r.start(0)
	gen := func() uint64 { return r.d.Get(virtiotest.ConfigGeneration) }
	r.d.DeviceConfig(0, 1)
	g := gen()
	r.d.DeviceConfig(0, 4)
	if gen() != g {
		t.Error("generation changes without reason")
	}
	r.pci.ChangeConfig(func() { r.dev.mu.Lock(); r.dev.config[4] = 1; r.dev.mu.Unlock() })
	if got := r.d.DeviceConfig(4, 1); got[0] != 1 {
		t.Error("change not seen")
	}
	if gen() == g {
		t.Error("generation did not change between the halves")
	}
	for _, n := range []int{1, 255, 256, 257} {
		g := gen()
		for range n {
			r.pci.ChangeConfig(func() {})
		}
		r.d.DeviceConfig(0, 1)
		if gen() == g {
			t.Errorf("%d changes look like none", n)
		}
	}
	if r.configInterrupts() == 0 {
		t.Error("no configuration interrupt")
	}
}
