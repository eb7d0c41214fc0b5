package virtio_test

import (
	"sync"
	"testing"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// 6.2: VERSION_1 is offered; IN_ORDER and what isn't implemented is not.
func TestOfferedFeatures(t *testing.T) {
	d := newRig(t).d
	if got, want := d.DeviceFeatures(), version1|indirect|eventIdx|ownFeature; got != want {
		t.Errorf("offered %#x, want %#x", got, want)
	}
	d.Set(virtiotest.DeviceFeatureSelect, 2)
	if got := d.Get(virtiotest.DeviceFeature); got != 0 {
		t.Errorf("features from bit 64: %#x", got)
	}
}

// 2.2.2: FEATURES_OK is refused for what was not offered, and without VERSION_1.
func TestFeaturesRefused(t *testing.T) {
	for _, c := range []struct {
		name     string
		features uint64
		page2    uint64
		refuse   error
		ok       bool
	}{
		{"all", version1 | indirect | eventIdx | ownFeature, 0, nil, true},
		{"only VERSION_1", version1, 0, nil, true},
		{"none", 0, 0, nil, false},
		{"no VERSION_1", indirect | ownFeature, 0, nil, false},
		{"not offered", version1 | 1<<35, 0, nil, false},
		{"not offered by the device", version1 | 1<<3, 0, nil, false},
		{"beyond bit 63", version1, 1, nil, false},
		{"refused by the device", version1, 0, errTest, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.dev.negotiate = c.refuse
			d := r.d
			d.Reset()
			d.SetStatus(1 | 2)
			d.SetDriverFeatures(c.features)
			if c.page2 != 0 {
				d.Set(virtiotest.DriverFeatureSelect, 2)
				d.Set(virtiotest.DriverFeature, c.page2)
			}
			d.SetStatus(8)
			if got := d.Status()&8 != 0; got != c.ok {
				t.Errorf("FEATURES_OK is %v", got)
			}
			if c.ok && (len(r.dev.negotiated) != 1 || r.dev.negotiated[0] != c.features) {
				t.Errorf("device was told %#x", r.dev.negotiated)
			}
			d.SetStatus(4)
			if r.dev.active != c.ok {
				t.Errorf("active: %v", r.dev.active)
			}
		})
	}
}

// 3.1.1: after FEATURES_OK the features are fixed.
func TestFeaturesFixed(t *testing.T) {
	r := newRig(t)
	r.d.Negotiate(version1 | ownFeature)
	r.d.SetDriverFeatures(version1 | eventIdx)
	r.d.SetStatus(4)
	if r.dev.features != version1|ownFeature {
		t.Errorf("device was activated with %#x", r.dev.features)
	}
	r.d.Set(virtiotest.DriverFeatureSelect, 0)
	if got := r.d.Get(virtiotest.DriverFeature); got != ownFeature {
		t.Errorf("driver_feature reads %#x", got)
	}
}

// 2.1.2: nothing is consumed or notified before DRIVER_OK.
func TestNothingBeforeDriverOK(t *testing.T) {
	r := newRig(t)
	r.d.Prepare(virtiotest.Setup{Features: version1})
	q := r.d.Queues[0]
	q.Add(r.buf(16, true))
	q.Kick()
	r.pci.ChangeConfig(func() {})
	r.pci.NeedsReset("test")
	if r.dev.active || q.UsedIdx() != 0 || r.configInterrupts() != 0 || r.d.ISR() != 0 {
		t.Error("the device did something before DRIVER_OK")
	}
	if r.d.Status()&virtio.StatusNeedsReset == 0 {
		t.Error("NEEDS_RESET is not shown")
	}
	// With DRIVER_OK it may be announced; a device that needs a reset does not start.
	r.d.SetStatus(4)
	if n := r.configInterrupts(); n != 1 || r.dev.active {
		t.Errorf("%d configuration interrupts, active: %v", n, r.dev.active)
	}
}

// DRIVER_OK without FEATURES_OK is refused: there are no negotiated features.
func TestDriverOKNeedsFeatures(t *testing.T) {
	r := newRig(t)
	r.d.Reset()
	r.d.SetStatus(1 | 2 | 4)
	if r.d.Status() != 1|2 || r.dev.active {
		t.Errorf("status %#x, active: %v", r.d.Status(), r.dev.active)
	}
}

// 2.1.2: NEEDS_RESET is announced, once; reset ends it.
func TestNeedsReset(t *testing.T) {
	r := newRig(t)
	r.start(0)
	r.pci.NeedsReset("one")
	r.pci.NeedsReset("two")
	r.needsReset()
	r.d.Reset()
	r.start(0)
	if r.d.Status() != 1|2|4|8 || r.dev.activations != 2 {
		t.Errorf("after reset: status %#x, %d activations", r.d.Status(), r.dev.activations)
	}
}

func TestActivateFails(t *testing.T) {
	r := newRig(t)
	r.dev.activate = errTest
	r.d.Start(virtiotest.Setup{Features: version1})
	r.needsReset()
}

// 2.4.1: status reads 0 only when the reset is complete; until then nothing can be set up.
func TestResetWaitsForInFlight(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(0)
	q.Add(r.buf(16, true))
	c, _ := dq.Next()
	r.dev.holdReset, r.dev.resets = true, 0
	r.d.Set(virtiotest.DeviceStatus, 0)
	if r.d.Status() != 1|2|4|8 {
		t.Errorf("status %#x while a request is in flight", r.d.Status())
	}
	r.d.Set(virtiotest.DeviceStatus, 0)
	r.d.SetStatus(virtio.StatusFailed)
	r.d.Set(virtiotest.QueueVector, 0)
	r.d.SetDriverFeatures(version1 | eventIdx)
	r.d.SetDeviceConfig(0, 1)
	if r.dev.resets != 1 || r.d.Status() != 1|2|4|8 || r.d.Get(virtiotest.QueueVector) != 1 || r.dev.config[0] != 0 {
		t.Error("a resetting device takes writes")
	}
	// What is in flight finishes, and the driver may still see it.
	dq.AddUsed(c.Head(), 0)
	dq.Publish()
	if _, _, ok := q.Take(); !ok {
		t.Error("request in flight was not used")
	}
	r.dev.done()
	if r.d.Status() != 0 {
		t.Errorf("status %#x after the reset", r.d.Status())
	}
}

// After reset everything is as it was at the start.
func TestResetClears(t *testing.T) {
	r := newRig(t)
	r.start(indirect | eventIdx)
	r.pci.NeedsReset("test")
	r.d.Reset()
	d := r.d
	d.Set(virtiotest.QueueSelect, 0)
	for f, want := range map[virtiotest.Field]uint64{
		virtiotest.DeviceStatus: 0, virtiotest.QueueEnable: 0, virtiotest.QueueSize: 16, virtiotest.QueueDesc: 0,
		virtiotest.QueueDriver: 0, virtiotest.QueueDevice: 0, virtiotest.DriverFeature: 0,
		virtiotest.ConfigVector: 0xffff, virtiotest.QueueVector: 0xffff,
	} {
		if got := d.Get(f); got != want {
			t.Errorf("field at %#x: %#x, want %#x", f.Off, got, want)
		}
	}
	if d.ISR() != 0 {
		t.Error("ISR status is set")
	}
}

// Queues the driver did not enable are not there for the device.
func TestQueuesNotEnabled(t *testing.T) {
	r := newRig(t, 16, 16, 16)
	r.d.Start(virtiotest.Setup{Features: version1, Queues: 2})
	if q := r.dev.queues; len(q) != 3 || q[0] == nil || q[1] == nil || q[2] != nil {
		t.Errorf("queues %v", q)
	}
}

// A guest with many vCPUs that all play with one device: no deadlock, no race, and
// in the end a device that still works.
func TestConcurrentTransport(t *testing.T) {
	r := newRig(t)
	d := r.d
	var wg sync.WaitGroup
	for cpu := range 4 {
		wg.Go(func() {
			for i := range 300 {
				switch (i + cpu) % 6 {
				case 0:
					d.Set(virtiotest.DeviceStatus, 0)
				case 1:
					d.Set(virtiotest.DeviceStatus, 1|2)
					d.SetDriverFeatures(version1)
					d.Set(virtiotest.DeviceStatus, 1|2|8|4)
				case 2:
					d.SetCfg(0x04, 2, uint32(i%2)*4|2)
				case 3:
					r.pci.NeedsReset("test")
				case 4:
					r.pci.ChangeConfig(func() {})
					d.DeviceConfig(0, 4)
				case 5:
					d.Set(virtiotest.QueueVector, uint64(i%3))
					d.SetCfg(d.MSIX+2, 2, uint32(i%4)<<14)
				}
			}
		})
	}
	wg.Wait()
	d.SetCfg(0x04, 2, 6)
	q, dq := r.start(0)
	q.Add(r.buf(16, true))
	if _, ok := dq.Next(); !ok {
		t.Error("device doesn't work any more")
	}
}
