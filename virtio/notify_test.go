package virtio_test

import (
	"errors"
	"testing"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/pci"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// 4.1.5.1.2: mapping events to MSI-X vectors, NO_VECTOR where that is impossible.
func TestMSIXMapping(t *testing.T) {
	r := newRig(t, 16, 16)
	d := r.d
	r.host.LimitVectors(2)
	for _, c := range []struct {
		name  string
		field virtiotest.Field
		v     uint64
		want  uint64
	}{
		{"config vector", virtiotest.ConfigVector, 0, 0},
		{"queue vector", virtiotest.QueueVector, 1, 1},
		{"shared", virtiotest.QueueVector, 0, 0},
		{"no such entry", virtiotest.QueueVector, 3, pci.NoVector},
		{"no such entry", virtiotest.ConfigVector, 0x7ff, pci.NoVector},
		{"machine has no line left", virtiotest.QueueVector, 2, pci.NoVector},
		{"unmapped", virtiotest.ConfigVector, pci.NoVector, pci.NoVector},
	} {
		d.Set(c.field, c.v)
		if got := d.Get(c.field); got != c.want {
			t.Errorf("%s: wrote %#x, reads %#x, want %#x", c.name, c.v, got, c.want)
		}
	}
	d.Set(virtiotest.QueueVector, 1)
	d.Reset()
	if d.Get(virtiotest.QueueVector) != pci.NoVector || d.Get(virtiotest.ConfigVector) != pci.NoVector {
		t.Error("vectors are mapped after reset")
	}
}

// 4.1.5.1: used buffers and configuration changes arrive at the vectors they are mapped to.
func TestMSIXInterrupts(t *testing.T) {
	r := newRig(t, 16, 16)
	r.start(0)
	for i, q := range r.d.Queues {
		dq := r.dev.queues[i]
		q.Add(r.buf(16, true))
		c, ok := dq.Next()
		if !ok {
			t.Fatal("no chain")
		}
		dq.AddUsed(c.Head(), 0)
		dq.Publish()
		if n := q.Interrupt().Take(); n != 1 {
			t.Errorf("queue %d: %d interrupts", i, n)
		}
		if n := r.d.Queues[1-i].Interrupt().Take(); n != 0 {
			t.Errorf("queue %d interrupted for queue %d", 1-i, i)
		}
	}
	r.pci.ChangeConfig(func() {})
	if n := r.configInterrupts(); n != 1 {
		t.Errorf("%d configuration interrupts", n)
	}
}

// 4.1.4.5: ISR status without MSI-X; reading clears it; the PCI status register follows.
// A driver without MSI-X finds its used buffers by polling.
func TestISRAndPolling(t *testing.T) {
	r := newRig(t)
	q, dq := r.startWith(virtiotest.Setup{NoMSIX: true})
	pending := func() bool { return r.d.Cfg(0x06, 2)&pci.StatusInterrupt != 0 }
	if r.d.ISR() != 0 || pending() {
		t.Error("interrupt pending at start")
	}
	q.Add(r.buf(16, true))
	c, _ := dq.Next()
	dq.AddUsed(c.Head(), 3)
	dq.Publish()
	if head, n, ok := q.Take(); !ok || head != c.Head() || n != 3 {
		t.Errorf("polled: head %d, length %d, %v", head, n, ok)
	}
	if !pending() {
		t.Error("status register shows no interrupt")
	}
	if got := r.d.ISR(); got != 1 {
		t.Errorf("ISR status %#x after a used buffer", got)
	}
	if r.d.ISR() != 0 || pending() {
		t.Error("reading ISR status doesn't clear it")
	}
	r.pci.ChangeConfig(func() {})
	if got := r.d.ISR(); got != 2 {
		t.Errorf("ISR status %#x after a configuration change", got)
	}
	r.pci.NeedsReset("test")
	if got := r.d.ISR(); got != 2 {
		t.Errorf("ISR status %#x after NEEDS_RESET", got)
	}
}

// Kicks before, while and after the device is live arrive or do no harm; the
// ioeventfds follow the BAR.
func TestKicks(t *testing.T) {
	r := newRig(t, 16, 16)
	d := r.d
	notify := d.At(virtiotest.NotifyCfg)
	r.host.Store(notify, []byte{0, 0})
	r.host.Store(notify+4, []byte{1, 0, 0, 0})
	r.host.Store(notify+8, []byte{2, 0}) // no such queue
	if len(r.host.IOEventFDs()) != 0 {
		t.Error("ioeventfds before DRIVER_OK")
	}
	r.start(0)
	fds := []int{r.dev.queues[0].KickFD(), r.dev.queues[1].KickFD()}
	if virtiotest.Drain(fds[0]) != 1 || virtiotest.Drain(fds[1]) != 1 {
		t.Error("kicks before DRIVER_OK were lost")
	}
	check := func(when string, base uint64) {
		t.Helper()
		have := r.host.IOEventFDs()
		want := map[uint64]int{}
		if base != 0 {
			want[base], want[base+4] = fds[0], fds[1]
		}
		if len(have) != len(want) {
			t.Errorf("%s: ioeventfds %#x, want %#x", when, have, want)
		}
		for a, fd := range want {
			if have[a] != fd {
				t.Errorf("%s: ioeventfds %#x, want %#x", when, have, want)
			}
		}
	}
	check("live", notify)
	for i, q := range d.Queues {
		q.Kick()
		if virtiotest.Drain(fds[i]) != 1 || virtiotest.Drain(fds[1-i]) != 0 {
			t.Errorf("kick of queue %d", i)
		}
	}
	d.SetCfg(0x04, 2, pci.CommandBusMaster)
	check("decoding off", 0)
	d.SetCfg(0x10, 4, 0xe1000000)
	d.SetCfg(0x04, 2, pci.CommandBusMaster|pci.CommandMemory)
	d.Base = 0xe1000000
	check("moved", d.At(virtiotest.NotifyCfg))
	d.Reset()
	check("after reset", d.At(virtiotest.NotifyCfg))
	r.host.Store(d.At(virtiotest.NotifyCfg), []byte{0, 0})
	if virtiotest.Drain(fds[0]) != 1 {
		t.Error("kick after reset")
	}
}

// Where the machine has no ioeventfd to give, kicks arrive as BAR writes.
func TestKickFallback(t *testing.T) {
	dev := &testDevice{sizes: []uint16{16}}
	mem, host := virtiotest.NewMemory(t), virtiotest.NewHost(t)
	dev2, err := virtio.NewPCI(dev, mem, noIOEventFD{host}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dev2.Close()
	d := virtiotest.Probe(t, mem, host, dev2)
	d.Start(virtiotest.Setup{Features: version1})
	d.Queues[0].Kick()
	if virtiotest.Drain(dev.queues[0].KickFD()) != 1 {
		t.Error("kick lost")
	}
}

type noIOEventFD struct{ *virtiotest.Host }

func (noIOEventFD) AddIOEventFD(uint64, int) error { return errors.New("none left") }
