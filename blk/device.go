package blk

import (
	"context"
	"fmt"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/guestlog"
)

const (
	deviceID  = 2        // block device (section 5)
	classCode = 0x018000 // mass storage, other

	defaultQueueSize = 256
	minQueueSize     = 4    // header, data, status, rounded up to a power of two
	maxQueueSize     = 1024 // a request has at most that many segments, and preadv takes no more (IOV_MAX)
)

// Config describes a disk.
type Config struct {
	ID        string      // the name in logs and statistics, "vda"
	Serial    string      // what the guest reads as its id, up to 20 bytes; empty: ID, cut off if it is longer
	Image     *Image      // open; the caller closes it after the device is reset
	Engine    *aio.Engine // carries out the requests
	Queues    int         // virtqueues; 0: 1
	Weight    int         // aio.PortConfig's
	Limits    aio.Limits  // of this disk alone
	Group     *aio.Group  // whose limits it shares with other disks; nil: none
	Errors    ErrorPolicy // what becomes of a request that the host fails
	QueueSize int         // entries of each, a power of two from 4 to 1024; 0: 256
	Log       *slog.Logger

	// Stop stops the guest, for Errors, until Device.Resume, unless that has come since the failure, as retried tells, which any
	// goroutine may call: then the request is carried out again already. It is called on the engine's thread and must not block.
	// nil: failures are reported.
	Stop func(f aio.Failure, retried func() bool)
}

// Device is a virtio block device. It implements virtio.Device.
type Device struct {
	id         string
	serial     [idSize]byte
	image      *Image
	engine     *aio.Engine
	log        *guestlog.Logger
	unbounded  *slog.Logger // for what a guest can't provoke again and again; nobody waits for it
	queueCount int
	queueSize  int
	weight     int
	limits     aio.Limits
	group      *aio.Group
	errors     ErrorPolicy
	stop       func(aio.Failure, func() bool)

	capacity atomic.Uint64 // sectors

	// Written by vCPU goroutines under the transport's lock, read by the engine's thread.
	features  atomic.Uint64 // negotiated, 0 before FEATURES_OK
	writeback atomic.Bool   // the configuration field of that name
	durable   atomic.Bool   // writes are stable when they complete

	// port is set while the device is active, and until the last request of a
	// reset is done. The engine's thread clears it and takes no lock for that.
	port atomic.Pointer[aio.Port]

	resumes atomic.Uint64 // calls of Resume, each counted before it has anything carried out again

	// mu serialises Pause, Resume, SetDrainWindow and Activate. It is held while Attach waits for the engine's thread.
	mu     sync.Mutex
	paused bool
	drain  int // SetDrainWindow's, also of ports to come

	sync deviceSync // sync.go
}

var (
	_ virtio.Device     = (*Device)(nil)
	_ virtio.Negotiator = (*Device)(nil)
)

// New makes a disk. It starts no I/O: that happens when the guest's driver is ready.
func New(cfg Config) (*Device, error) {
	queues, size := cfg.Queues, cfg.QueueSize
	if queues == 0 {
		queues = 1
	}
	if size == 0 {
		size = defaultQueueSize
	}
	serial := cfg.Serial
	switch {
	case cfg.Image == nil || cfg.Engine == nil:
		return nil, fmt.Errorf("disk %s: no image or no engine", cfg.ID)
	case queues < 1 || queues > virtio.MaxQueues:
		return nil, fmt.Errorf("disk %s: queues=%d is not possible, use 1 to %d", cfg.ID, queues, virtio.MaxQueues)
	case size < minQueueSize || size > maxQueueSize || bits.OnesCount(uint(size)) != 1:
		return nil, fmt.Errorf("disk %s: queue-size=%d is not possible, use a power of two from %d to %d", cfg.ID, size, minQueueSize, maxQueueSize)
	case len(serial) > idSize:
		return nil, fmt.Errorf("disk %s: serial=%s has %d bytes, use at most %d", cfg.ID, serial, len(serial), idSize)
	case serial == "":
		serial = cfg.ID
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Device{
		id:         cfg.ID,
		image:      cfg.Image,
		engine:     cfg.Engine,
		log:        guestlog.New(cfg.Log),
		unbounded:  cfg.Log,
		queueCount: queues,
		queueSize:  size,
		weight:     cfg.Weight,
		limits:     cfg.Limits,
		group:      cfg.Group,
		errors:     cfg.Errors,
		stop:       cfg.Stop,
		drain:      aio.Unlimited,
		sync:       newDeviceSync(),
	}
	copy(d.serial[:], serial)
	d.UpdateCapacity()
	d.clear()
	return d, nil
}

// UpdateCapacity takes over the image's size, after Image.Resize. The driver is told
// by whoever calls it (virtio.PCI.ChangeConfig). Any goroutine.
func (d *Device) UpdateCapacity() { d.capacity.Store(uint64(d.image.Size()) / sectorSize) }

// clear puts the negotiated state to what it is after reset.
func (d *Device) clear() {
	d.features.Store(0)
	d.writeback.Store(true)
	d.setDurable()
}

// ID implements virtio.Device.
func (d *Device) ID() uint16 { return deviceID }

// Class implements virtio.Device.
func (d *Device) Class() uint32 { return classCode }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	s := make([]uint16, d.queueCount)
	for i := range s {
		s[i] = uint16(d.queueSize)
	}
	return s
}

// Activate implements virtio.Device: the disk becomes a port of the engine, with a
// demand of everything its queues can hold.
func (d *Device) Activate(features uint64, vqs []*virtio.Queue) error {
	if d.image.incoming.Load() {
		return fmt.Errorf("disk %s: its image is still another host's", d.id)
	}
	cfg := aio.PortConfig{
		Name: d.id, FD: d.image.fd, MemoryAlign: d.image.memAlign,
		Weight: d.weight, Limits: d.limits, Group: d.group, Keep: d.keep, SyncFailed: d.syncFailed,
	}
	for _, vq := range vqs {
		if vq == nil {
			continue
		}
		cfg.Queues = append(cfg.Queues, newQueue(d, vq))
		cfg.Demand += vq.Size()
	}
	if len(cfg.Queues) == 0 {
		return nil // a driver that enables no queue wants no I/O
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	cfg.Tokens = d.image.tokens.Load()
	cfg.Held = d.paused || d.drain != aio.Unlimited
	port, err := d.engine.Attach(cfg)
	if err != nil {
		return fmt.Errorf("disk %s: %w", d.id, err)
	}
	if cfg.Held {
		port.SetWindow(aio.CauseDrain, d.drain)
		if !d.paused {
			port.SetWindow(aio.CausePause, aio.Unlimited)
		}
	}
	d.port.Store(port)
	return nil
}

// Reset implements virtio.Device: what is in flight finishes, nothing more is popped.
func (d *Device) Reset(done func()) {
	end := func() {
		if port := d.port.Load(); port != nil && d.limits != (aio.Limits{}) {
			t := port.Left()
			d.image.tokens.Store(&t)
		}
		d.port.Store(nil)
		d.clear()
		done()
	}
	if port := d.port.Load(); port != nil {
		port.Detach(end)
		return
	}
	end()
}

// Pause holds the disk: no request is taken from the guest, and when Pause returns
// nil none is in flight. What the guest adds stays in its virtqueues. If ctx ends
// first the disk goes on as before. Any goroutine but the engine's.
func (d *Device) Pause(ctx context.Context) error {
	d.mu.Lock()
	d.paused = true
	port := d.port.Load()
	if port != nil {
		port.SetWindow(aio.CausePause, 0)
	}
	d.mu.Unlock()
	if port == nil {
		return nil
	}
	if err := port.Idle(ctx); err != nil {
		d.Resume()
		return err // names the disk
	}
	return nil
}

// Resume undoes Pause, and has requests that failed and were kept carried out again. Any goroutine.
func (d *Device) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = false
	d.resumes.Add(1)
	if port := d.port.Load(); port != nil {
		port.Retry()
		port.SetWindow(aio.CausePause, aio.Unlimited)
	}
}

// Stats returns the engine's counters for this disk; ok is false while no driver
// uses it. Any goroutine but the engine's.
func (d *Device) Stats() (s aio.PortStats, ok bool) {
	port := d.port.Load()
	if port == nil {
		return s, false
	}
	return port.Stats(), true
}
