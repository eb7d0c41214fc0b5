package blk

import (
	"encoding/binary"
	"testing"

	"github.com/ebb-vmm/ebb/virtio"
)

func (r *rig) config32(off uint64) uint32 {
	return binary.LittleEndian.Uint32(r.d.DeviceConfig(off, 4))
}

func (r *rig) config16(off uint64) uint16 {
	return binary.LittleEndian.Uint16(r.d.DeviceConfig(off, 2))
}

func TestConfigSpace(t *testing.T) {
	r := newRig(t, testImage(), 0)
	if got := binary.LittleEndian.Uint64(r.d.DeviceConfig(0, 8)); got != testSectors {
		t.Errorf("capacity %d", got)
	}
	for _, c := range []struct {
		name string
		off  uint64
		want uint32
	}{
		{"seg_max", 12, 14}, {"blk_size", 20, 512}, {"opt_io_size", 28, 0},
		{"max_discard_sectors", 36, maxDiscardSectors}, {"max_discard_seg", 40, 1}, {"discard_sector_alignment", 44, 8},
		{"max_write_zeroes_sectors", 48, maxWriteZeroesSectors}, {"max_write_zeroes_seg", 52, 1},
		{"may unmap, and padding", 56, 1}, {"beyond the end", 60, 0},
	} {
		if got := r.config32(c.off); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if r.config16(24) != 3 || r.config16(26) != 8 || r.config16(34) != 1 {
		t.Errorf("physical block exponent %d, min_io_size %d, num_queues %d", r.config16(24), r.config16(26), r.config16(34))
	}
	if w := r.d.DeviceConfig(32, 2); w[0] != 1 || w[1] != 0 {
		t.Errorf("writeback and padding: %v", w)
	}
	// Nothing but writeback is writable.
	for off := uint64(0); off < 60; off++ {
		if off != cfgWriteback {
			r.d.SetDeviceConfig(off, 0x55)
		}
	}
	r.d.SetDeviceConfig(cfgWriteback, 0, 0) // 16 bits wide: not an access to the field
	if r.config32(12) != 14 || r.config32(cfgWriteback) != 1|1<<16 {
		t.Error("configuration changed")
	}
}

func TestFeatures(t *testing.T) {
	const common = featSegMax | featBlkSize | featTopology | featFlush
	d := &Device{image: testImage(), queueCount: 1, queueSize: 16}
	if f := d.Features(); f != common|featConfigWCE|featDiscard|featWriteZeroes {
		t.Errorf("one queue: %#x", f)
	}
	d.queueCount = 2
	if f := d.Features(); f&featMQ == 0 {
		t.Errorf("two queues: %#x", f)
	}
	d.image.discard, d.image.zeroes = false, false
	if f := d.Features(); f&(featDiscard|featWriteZeroes) != 0 {
		t.Errorf("device that can't: %#x", f)
	}
	var b [cfgSize]byte
	d.putConfig(&b)
	for i, v := range b[cfgMaxDiscard:] {
		if v != 0 {
			t.Errorf("byte %d of features not offered is %d", cfgMaxDiscard+i, v)
		}
	}
	d.image.readOnly = true
	if f := d.Features(); f != common|featMQ|featReadOnly {
		t.Errorf("read-only: %#x", f)
	}
	// 5.2.5.2: CONFIG_WCE is offered only with FLUSH.
	if f := d.Features(); f&featConfigWCE != 0 && f&featFlush == 0 {
		t.Error("CONFIG_WCE without FLUSH")
	}
}

// 5.2.5.2, 5.2.6.2: which writes have to be stable when they complete.
func TestCacheMode(t *testing.T) {
	for _, c := range []struct {
		name      string
		features  uint64
		writeback byte // after negotiation
		set       int  // what the driver writes to it; -1: nothing
		durable   bool
	}{
		{"neither FLUSH nor CONFIG_WCE", featSegMax, 1, -1, true},
		{"FLUSH alone", featFlush, 1, -1, false},
		{"FLUSH alone, writes the field all the same", featFlush, 1, 0, false},
		{"both", featFlush | featConfigWCE, 1, -1, false},
		{"both, writethrough", featFlush | featConfigWCE, 1, 0, true},
		{"both, writeback again", featFlush | featConfigWCE, 1, 1, false},
		{"CONFIG_WCE alone", featConfigWCE, 0, -1, true},
		{"CONFIG_WCE alone, writeback", featConfigWCE, 0, 1, true}, // there is no flush to make them stable later
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, testImage(), c.features|featDiscard|featWriteZeroes)
			if got := r.d.DeviceConfig(cfgWriteback, 1)[0]; got != c.writeback {
				t.Errorf("writeback is %d", got)
			}
			if c.set >= 0 {
				r.d.SetDeviceConfig(cfgWriteback, byte(c.set))
			}
			for _, w := range []struct {
				typ     uint32
				payload []byte
				room    int
				durable bool
			}{
				{typeOut, make([]byte, 512), 0, c.durable},
				{typeWriteZeroes, extentBytes(0, 8, 0), 0, c.durable},
				{typeDiscard, extentBytes(0, 8, 0), 0, c.durable},
				{typeIn, nil, 512, false},
			} {
				r.send(w.typ, 0, w.payload, w.room)
				if got := r.issued().Durable; got != w.durable {
					t.Errorf("request type %d: durable is %v", w.typ, got)
				}
			}
		})
	}
}

// The mode holds for requests popped after the change, and a reset forgets it.
func TestCacheModeChanges(t *testing.T) {
	r := newRig(t, testImage(), 0)
	durable := func(want bool) {
		t.Helper()
		r.send(typeOut, 0, make([]byte, 512), 0)
		if got := r.issued().Durable; got != want {
			t.Errorf("durable is %v", got)
		}
	}
	durable(false)
	r.d.SetDeviceConfig(cfgWriteback, 0)
	if got := r.d.DeviceConfig(cfgWriteback, 1)[0]; got != 0 {
		t.Errorf("writeback reads %d", got)
	}
	durable(true)
	r.d.SetDeviceConfig(cfgWriteback, 1)
	durable(false)
	r.d.SetDeviceConfig(cfgWriteback, 0)
	r.d.Reset()
	r.d.SetDeviceConfig(cfgWriteback, 0) // not negotiated: not the driver's to write
	if got := r.d.DeviceConfig(cfgWriteback, 1)[0]; got != 1 {
		t.Errorf("writeback is %d after reset", got)
	}
	r.start(0)
	durable(false)
	if f := r.d.DeviceFeatures(); f&virtio.FeatureVersion1 == 0 {
		t.Errorf("features %#x", f)
	}
}
