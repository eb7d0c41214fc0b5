package virtio

import (
	"encoding/binary"
	"log/slog"

	"github.com/ebb-vmm/ebb/virtio/pci"
)

// Fields of struct virtio_pci_common_cfg (4.1.4.3). The fields of later features
// (queue_notify_data, queue_reset, admin queues) exist only where those are
// negotiated, so the structure ends before them.
const (
	regDeviceFeatureSelect = 0x00
	regDeviceFeature       = 0x04
	regDriverFeatureSelect = 0x08
	regDriverFeature       = 0x0c
	regConfigVector        = 0x10
	regNumQueues           = 0x12
	regStatus              = 0x14
	regGeneration          = 0x15
	regQueueSelect         = 0x16
	regQueueSize           = 0x18
	regQueueVector         = 0x1a
	regQueueEnable         = 0x1c
	regQueueNotifyOff      = 0x1e
	regQueueDesc           = 0x20
	regQueueDriver         = 0x28
	regQueueDevice         = 0x30
	commonSize             = 0x38
)

// registers is what the driver has written; PCI.mu guards it.
type registers struct {
	deviceFeatureSelect uint32
	driverFeatureSelect uint32
	driverFeatures      uint64
	beyond              bool // the driver set feature bits above 63
	status              uint8
	resetting           bool // 0 was written to status, the device is not done yet
	generation          uint8
	configChanged       bool // since the driver last read the device configuration
	queueSelect         uint16
	queues              []virtqueue
}

// virtqueue is one queue's registers, and the queue they configure.
type virtqueue struct {
	layout
	max     uint16
	enabled bool
	queue   *Queue
}

// clear puts every register to its value after reset (2.4). t.mu is held, or nobody else knows t yet.
func (t *PCI) clear() {
	queues, generation := t.regs.queues, t.regs.generation
	for i := range queues {
		queues[i].layout = layout{size: queues[i].max}
		queues[i].enabled = false
		t.queueVectors[i].Store(pci.NoVector)
	}
	t.regs = registers{queues: queues, generation: generation}
	t.configVector.Store(pci.NoVector)
	t.isr.Store(0)
	t.needsReset.Store(false)
}

// selected returns the queue of queue_select, nil if there is none.
func (t *PCI) selected() *virtqueue {
	if int(t.regs.queueSelect) < len(t.regs.queues) {
		return &t.regs.queues[t.regs.queueSelect]
	}
	return nil
}

// featurePage returns bits 32×page to 32×page+31.
func featurePage(features uint64, page uint32) uint32 {
	if page > 1 {
		return 0
	}
	return uint32(features >> (32 * page))
}

// readCommon reads the common configuration, with any width and alignment: the
// bytes are cut out of the structure as it is at this moment.
func (t *PCI) readCommon(off uint64, p []byte) {
	if off >= commonSize {
		return
	}
	var b [commonSize]byte
	t.mu.Lock()
	t.putCommon(&b)
	t.mu.Unlock()
	copy(p, b[off:])
}

func (t *PCI) putCommon(b *[commonSize]byte) {
	le, r := binary.LittleEndian, &t.regs
	le.PutUint32(b[regDeviceFeatureSelect:], r.deviceFeatureSelect)
	le.PutUint32(b[regDeviceFeature:], featurePage(t.offered, r.deviceFeatureSelect))
	le.PutUint32(b[regDriverFeatureSelect:], r.driverFeatureSelect)
	le.PutUint32(b[regDriverFeature:], featurePage(r.driverFeatures, r.driverFeatureSelect))
	le.PutUint16(b[regConfigVector:], uint16(t.configVector.Load()))
	le.PutUint16(b[regNumQueues:], uint16(len(r.queues)))
	b[regStatus] = r.status
	if t.needsReset.Load() {
		b[regStatus] |= StatusNeedsReset
	}
	b[regGeneration] = r.generation
	le.PutUint16(b[regQueueSelect:], r.queueSelect)
	q := t.selected()
	if q == nil {
		return // size 0: there is no such queue
	}
	le.PutUint16(b[regQueueSize:], q.size)
	le.PutUint16(b[regQueueVector:], uint16(t.queueVectors[r.queueSelect].Load()))
	if q.enabled {
		b[regQueueEnable] = 1
	}
	le.PutUint16(b[regQueueNotifyOff:], r.queueSelect)
	le.PutUint64(b[regQueueDesc:], q.desc)
	le.PutUint64(b[regQueueDriver:], q.avail)
	le.PutUint64(b[regQueueDevice:], q.used)
}

// writeCommon writes one field with its own width (4.1.3.1): 64-bit fields as
// 32-bit halves, or at once. Other widths are ignored. While a reset is going on nothing is writable.
func (t *PCI) writeCommon(off uint64, p []byte) {
	if len(p) == 8 && off >= regQueueDesc && off%8 == 0 {
		t.writeCommon(off, p[:4])
		t.writeCommon(off+4, p[4:])
		return
	}
	le := binary.LittleEndian
	switch len(p) {
	case 1:
		if off == regStatus {
			t.writeStatus(p[0])
		}
	case 2:
		t.write16(off, le.Uint16(p))
	case 4:
		t.write32(off, le.Uint32(p))
	}
}

func (t *PCI) write16(off uint64, v uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.regs
	if r.resetting {
		return
	}
	q := t.selected()
	switch off {
	case regConfigVector:
		t.configVector.Store(t.vector(v))
	case regQueueSelect:
		r.queueSelect = v
	case regQueueVector:
		if q != nil {
			t.queueVectors[r.queueSelect].Store(t.vector(v))
		}
	case regQueueSize:
		if q != nil && !q.enabled {
			if (layout{size: v}).check(q.max) != nil {
				v = 0 // what is presented is 0 or a power of two (4.1.4.3.1); with 0 the queue can't be enabled
			}
			q.size = v
		}
	case regQueueEnable:
		if q != nil && !q.enabled && v == 1 {
			t.enable(q)
		}
	}
}

// vector returns what is stored for an MSI-X vector the driver names: NoVector
// tells it that there is no such one, or none to be had (4.1.5.1.2.2).
func (t *PCI) vector(v uint16) uint32 {
	if v == pci.NoVector {
		return pci.NoVector
	}
	if err := t.msix.Allocate(v); err != nil {
		t.log.Log(slog.LevelWarn, "MSI-X vector refused", slog.Int("vector", int(v)), slog.Any("err", err))
		return pci.NoVector
	}
	return uint32(v)
}

// enable checks what the driver set up for a queue. If the device can't use it
// queue_enable stays 0 and the device needs a reset: there is no other way to refuse.
func (t *PCI) enable(q *virtqueue) {
	err := q.check(q.max)
	if err == nil {
		_, err = q.resolve(t.mem)
	}
	if err != nil {
		t.NeedsReset("queue not enabled: " + err.Error())
		return
	}
	q.enabled = true
}

func (t *PCI) write32(off uint64, v uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.regs
	if r.resetting {
		return
	}
	switch off {
	case regDeviceFeatureSelect:
		r.deviceFeatureSelect = v
		return
	case regDriverFeatureSelect:
		r.driverFeatureSelect = v
		return
	case regDriverFeature:
		t.writeFeatures(v)
		return
	}
	q := t.selected()
	if q == nil || q.enabled {
		return
	}
	switch off {
	case regQueueDesc, regQueueDesc + 4:
		setHalf(&q.desc, off, v)
	case regQueueDriver, regQueueDriver + 4:
		setHalf(&q.avail, off, v)
	case regQueueDevice, regQueueDevice + 4:
		setHalf(&q.used, off, v)
	}
}

// writeFeatures takes a page of the driver's features; after FEATURES_OK they are fixed (3.1.1).
func (t *PCI) writeFeatures(v uint32) {
	r := &t.regs
	switch {
	case r.status&StatusFeaturesOK != 0:
	case r.driverFeatureSelect > 1:
		r.beyond = r.beyond || v != 0
	default:
		setHalf(&r.driverFeatures, uint64(4*r.driverFeatureSelect), v)
	}
}

// setHalf writes the low or the high half of x; off is the byte offset of the half.
func setHalf(x *uint64, off uint64, v uint32) {
	shift := 8 * (off & 4)
	*x = *x&^(0xffffffff<<shift) | uint64(v)<<shift
}

func (t *PCI) readDevice(off int, p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.regs.configChanged {
		// Counted when it is seen, so that 256 changes between two reads don't look like none (4.1.4.3.1).
		t.regs.configChanged = false
		t.regs.generation++
	}
	t.dev.ReadConfig(off, p)
}

func (t *PCI) writeDevice(off int, p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.regs.resetting {
		t.dev.WriteConfig(off, p)
	}
}
