package virtio_test

import (
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	indirect = virtio.FeatureIndirectDesc
	eventIdx = virtio.FeatureEventIdx
	version1 = virtio.FeatureVersion1
)

const ownFeature = 1 << 9 // the only device-type feature bit of testDevice

// testDevice is a device without any function: a test is its engine.
type testDevice struct {
	sizes []uint16

	mu          sync.Mutex
	config      [16]byte
	active      bool
	activations int
	features    uint64
	queues      []*virtio.Queue
	negotiated  []uint64
	negotiate   error // answer of Negotiated
	activate    error // answer of Activate
	holdReset   bool
	resets      int
	done        func() // of a Reset being held
}

func (d *testDevice) ID() uint16           { return 2 }
func (d *testDevice) Class() uint32        { return 0x018000 }
func (d *testDevice) Features() uint64     { return ownFeature }
func (d *testDevice) QueueSizes() []uint16 { return d.sizes }

func (d *testDevice) ReadConfig(off int, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < len(d.config) {
		copy(p, d.config[off:])
	}
}

func (d *testDevice) WriteConfig(off int, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < len(d.config) {
		copy(d.config[off:], p)
	}
}

func (d *testDevice) Negotiated(f uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.negotiated = append(d.negotiated, f)
	return d.negotiate
}

func (d *testDevice) Activate(f uint64, q []*virtio.Queue) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active, d.features, d.queues = true, f, q
	d.activations++
	return d.activate
}

func (d *testDevice) Reset(done func()) {
	d.mu.Lock()
	d.active = false
	d.resets++
	if d.holdReset {
		d.done = done
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	done()
}

// rig is a device on a bus and a driver for it.
type rig struct {
	*testing.T
	dev  *testDevice
	mem  *virtiotest.Memory
	host *virtiotest.Host
	pci  *virtio.PCI
	d    *virtiotest.Driver
}

func newRig(t *testing.T, sizes ...uint16) *rig {
	t.Helper()
	if len(sizes) == 0 {
		sizes = []uint16{16}
	}
	r := &rig{T: t, dev: &testDevice{sizes: sizes}, mem: virtiotest.NewMemory(t), host: virtiotest.NewHost(t)}
	var err error
	if r.pci, err = virtio.NewPCI(r.dev, r.mem, r.host, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.pci.Close(); err != nil {
			t.Error(err)
		}
		if left := r.host.IOEventFDs(); len(left) != 0 {
			t.Errorf("ioeventfds left behind: %v", left)
		}
	})
	r.d = virtiotest.Probe(t, r.mem, r.host, r.pci)
	return r
}

// start brings the device up with the given features (VERSION_1 is added) and
// returns both sides of queue 0.
func (r *rig) start(features uint64) (*virtiotest.Queue, *virtio.Queue) {
	r.Helper()
	return r.startWith(virtiotest.Setup{Features: features})
}

func (r *rig) startWith(s virtiotest.Setup) (*virtiotest.Queue, *virtio.Queue) {
	r.Helper()
	s.Features |= version1
	r.d.Start(s)
	if !r.dev.active {
		r.Fatal("device is not active after DRIVER_OK")
	}
	return r.d.Queues[0], r.dev.queues[0]
}

func (r *rig) buf(n uint32, write bool) virtiotest.Buf {
	return virtiotest.Buf{Addr: r.mem.Alloc(uint64(n), 16), Len: n, Write: write}
}

// configInterrupts returns how many configuration change interrupts came.
func (r *rig) configInterrupts() int { return r.d.Vector(0).Take() }

// needsReset checks that the device asks for a reset, and said so once.
func (r *rig) needsReset() {
	r.Helper()
	if r.d.Status()&virtio.StatusNeedsReset == 0 {
		r.Error("device does not need a reset")
	}
	if n := r.configInterrupts(); n != 1 {
		r.Errorf("%d configuration interrupts, want 1", n)
	}
}

var errTest = errors.New("refused by the test")
