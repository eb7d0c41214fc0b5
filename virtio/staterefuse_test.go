package virtio_test

import (
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

func TestSaveRefusesWhatIsGoingOn(t *testing.T) {
	r := newRig(t)
	q, dq := r.start(0)
	q.Add(r.buf(16, true))
	refused := func(want string) {
		t.Helper()
		if _, err := r.pci.Save(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	c, _ := dq.Next()
	refused("queue 0: requests are in flight")
	dq.AddUsed(c.Head(), 0)
	refused("queue 0: the driver was not shown")
	dq.Publish()
	r.save()
	r.dev.holdReset = true
	r.d.Set(virtiotest.DeviceStatus, 0)
	refused("being reset")
	r.dev.done()
	r.save()
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*virtio.PCIState)
		want   string
	}{
		"short config":      {func(s *virtio.PCIState) { s.Config.Data = s.Config.Data[:255] }, "255 bytes"},
		"other device":      {func(s *virtio.PCIState) { s.Config.Data[2]++ }, "another one's"},
		"other capability":  {func(s *virtio.PCIState) { s.Config.Data[0x42]++ }, "another one's"},
		"short table":       {func(s *virtio.PCIState) { s.MSIX.Entries = s.MSIX.Entries[:1] }, "MSI-X table"},
		"odd message":       {func(s *virtio.PCIState) { s.MSIX.Entries[0].Addr |= 1 }, "multiple of 4"},
		"pending, off":      {func(s *virtio.PCIState) { s.MSIX.Entries[0].Pending = true; s.Config.Data[0x43] &= 0x7f }, "MSI-X is off"},
		"features":          {func(s *virtio.PCIState) { s.DriverFeatures |= 1 << 33 }, "not offered"},
		"features above 63": {func(s *virtio.PCIState) { s.Beyond = true }, "not offered"},
		"no VERSION_1":      {func(s *virtio.PCIState) { s.DriverFeatures = 0 }, "VERSION_1"},
		"status":            {func(s *virtio.PCIState) { s.Status |= virtio.StatusNeedsReset }, "device status"},
		"no FEATURES_OK":    {func(s *virtio.PCIState) { s.Status &^= virtio.StatusFeaturesOK }, "device status"},
		"no DRIVER_OK":      {func(s *virtio.PCIState) { s.Status &^= virtio.StatusDriverOK }, "active with"},
		"inactive":          {func(s *virtio.PCIState) { s.Active = false }, "neither"},
		"ISR":               {func(s *virtio.PCIState) { s.ISR = 4 }, "ISR"},
		"config vector":     {func(s *virtio.PCIState) { s.ConfigVector = 2 }, "vector 2 of 2"},
		"no queues":         {func(s *virtio.PCIState) { s.Queues = nil }, "0 queues"},
		"queue vector":      {func(s *virtio.PCIState) { s.Queues[0].Vector = 0x7ff }, "vector 2047"},
		"size":              {func(s *virtio.PCIState) { s.Queues[0].Size = 32 }, "queue size 32"},
		"size 0":            {func(s *virtio.PCIState) { s.Queues[0].Size = 0 }, "queue size 0"},
		"odd size, off":     {func(s *virtio.PCIState) { s.Queues[0] = virtio.QueueState{Size: 3} }, "queue size 3"},
		"misaligned":        {func(s *virtio.PCIState) { s.Queues[0].Desc++ }, "aligned"},
		"outside RAM":       {func(s *virtio.PCIState) { s.Queues[0].Used = 1 << 62 }, "not in guest RAM"},
		"wraps":             {func(s *virtio.PCIState) { s.Queues[0].Avail = ^uint64(1) }, "not in guest RAM"},
		"ran, off":          {func(s *virtio.PCIState) { s.Queues[0].Enabled, s.Queues[0].Next = false, 1 }, "not in use"},
		"failed":            {func(s *virtio.PCIState) { s.Queues[0].Failed = true }, "needs no reset"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.start(0)
			s, err := r.pci.Save()
			if err != nil {
				t.Fatal(err)
			}
			c.change(&s)
			n := r.fresh()
			if err := n.pci.Load(s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if n.dev.activations != 0 {
				t.Error("activated all the same")
			}
		})
	}
	r := newRig(t)
	r.start(0)
	state := r.save()
	if err := r.load(state); err == nil || !strings.Contains(err.Error(), "at work") {
		t.Errorf("load over a running driver: %v", err)
	}
	n := r.fresh()
	n.host.RefuseBARs(errTest)
	if err := n.load(state); err == nil || !strings.Contains(err.Error(), "can't be mapped") {
		t.Errorf("BAR not mapped: %v", err)
	}
	n = r.fresh()
	n.host.LimitVectors(1)
	if err := n.load(state); err == nil || !strings.Contains(err.Error(), "no MSI line left") {
		t.Errorf("no line left: %v", err)
	}
	n = r.fresh()
	n.dev.activate = errTest
	if err := n.load(state); err != errTest {
		t.Errorf("not activated: %v", err)
	}
}
