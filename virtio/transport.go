package virtio

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ebb-vmm/ebb/virtio/guestlog"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// Layout of the only BAR. Each structure has pages of its own.
const (
	bar = 0

	commonAt    = 0x0000
	isrAt       = 0x1000
	deviceAt    = 0x2000
	notifyAt    = 0x3000
	msixTableAt = 0x4000
	msixPBAAt   = 0x7000
	barSize     = 0x8000

	regionSize       = 0x1000
	notifyMultiplier = 4 // bytes between two queues' notify addresses

	// MaxQueues is the most virtqueues a device may have here: each has an
	// MSI-X vector of its own, and one is for configuration changes.
	MaxQueues = (msixPBAAt-msixTableAt)/pci.MSIXEntrySize - 1
)

// PCI identity of a modern virtio device (4.1.2).
const (
	vendorID     = 0x1af4
	deviceIDBase = 0x1040 // plus the virtio device id
	revision     = 1      // not a transitional device
)

// PCI is a virtio device on the PCI bus: the modern transport (4.1), MSI-X only.
// It has no interrupt pin; a driver without MSI-X finds used buffers by polling.
//
// As a pci.Function it may be called by several vCPU goroutines at once.
type PCI struct {
	dev     Device
	mem     Memory
	config  *pci.Config
	msix    *pci.MSIX
	kicks   *kicks
	log     *guestlog.Logger
	offered uint64

	// lifecycle serialises writes of the device status, and so Negotiated, Activate and
	// Reset. It is held while Activate waits for the engine's thread, so nothing
	// that thread calls may take it.
	lifecycle sync.Mutex
	active    bool // between Activate and Reset of the device; guarded by lifecycle

	// mu guards the registers. Order: lifecycle, then mu. The device's
	// ReadConfig, WriteConfig and Negotiated are called with it held.
	mu   sync.Mutex
	regs registers

	// What the engine's thread touches: atomics, no locks.
	live         atomic.Bool   // DRIVER_OK: notifications may be sent
	needsReset   atomic.Bool   // DEVICE_NEEDS_RESET
	isr          atomic.Uint32 // ISR status (4.1.4.5)
	configVector atomic.Uint32
	queueVectors []atomic.Uint32
}

var _ pci.Function = (*PCI)(nil)

const (
	isrQueue  = 1
	isrConfig = 2
)

// NewPCI puts dev on a PCI function with its BAR not yet mapped. log, which may be
// nil, gets what the guest does wrong, never more than a line every few seconds.
func NewPCI(dev Device, mem Memory, host pci.Host, log *slog.Logger) (*PCI, error) {
	sizes := dev.QueueSizes()
	if len(sizes) == 0 || len(sizes) > MaxQueues {
		return nil, fmt.Errorf("virtio device with %d virtqueues, 1 to %d are possible", len(sizes), MaxQueues)
	}
	for i, s := range sizes {
		if s == 0 || s > MaxQueueSize || bits.OnesCount16(s) != 1 {
			return nil, fmt.Errorf("virtqueue %d has %d entries, a power of two up to %d is possible", i, s, MaxQueueSize)
		}
	}
	t := &PCI{
		dev:          dev,
		mem:          mem,
		log:          guestlog.New(log),
		offered:      dev.Features() | transportFeatures,
		queueVectors: make([]atomic.Uint32, len(sizes)),
	}
	k, err := newKicks(len(sizes), host, t.log)
	if err != nil {
		return nil, err
	}
	t.kicks = k
	t.regs.queues = make([]virtqueue, len(sizes))
	for i, s := range sizes {
		t.regs.queues[i] = virtqueue{
			max:   s,
			queue: newQueue(mem, i, s, k.fds[i], func() { t.usedBuffer(i) }, t.NeedsReset),
		}
	}
	t.clear()
	t.config = pci.NewConfig(pci.ID{
		Vendor: vendorID, Device: deviceIDBase + dev.ID(), Revision: revision, Class: dev.Class(),
		SubsystemVendor: vendorID, SubsystemDevice: deviceIDBase + dev.ID(),
	})
	t.addCapabilities(host, len(sizes))
	t.config.Bind(pci.Binding{
		Function: t,
		Host:     host,
		Moved: func(_ int, addr uint64) {
			if addr != 0 {
				addr += notifyAt
			}
			t.kicks.moved(addr)
		},
		Command: t.msix.Update,
		Failed: func(_ int, addr uint64, err error) {
			t.log.Log(slog.LevelWarn, "BAR not mapped", slog.String("addr", fmt.Sprintf("%#x", addr)), slog.Any("err", err))
		},
	})
	return t, nil
}

// Types of the virtio structures in the capability chain (4.1.4).
const (
	capVendor       = 0x09
	capCommonConfig = 1
	capNotifyConfig = 2
	capISRConfig    = 3
	capDeviceConfig = 4
	capPCIConfig    = 5
)

func (t *PCI) addCapabilities(host pci.Host, queues int) {
	t.config.AddBAR(bar, barSize)
	t.msix = pci.NewMSIX(t.config, host, queues+1, bar, msixTableAt, msixPBAAt, func(err error) {
		t.log.Log(slog.LevelWarn, "MSI-X vector can't be delivered", slog.Any("err", err))
	})
	t.config.AddCapability(structure(capCommonConfig, commonAt, commonSize))
	t.config.AddCapability(structure(capISRConfig, isrAt, 1))
	t.config.AddCapability(structure(capDeviceConfig, deviceAt, regionSize))
	t.config.AddCapability(structure(capNotifyConfig, notifyAt, uint32(queues)*notifyMultiplier, notifyMultiplier))

	// A window into the BAR through configuration space, for those who can't map it (4.1.4.9).
	w := structure(capPCIConfig, 0, 0, 0)
	w.Writable = make([]byte, len(w.Body))
	w.Writable[2] = 0xff // bar
	for i := 6; i < len(w.Body); i++ {
		w.Writable[i] = 0xff // offset, length, pci_cfg_data
	}
	at := 0
	w.Window = func(write bool, p []byte) { t.window(at, write, p) }
	at = t.config.AddCapability(w)
}

// structure is struct virtio_pci_cap (4.1.4) without its first two bytes.
func structure(typ byte, offset, length uint32, extra ...uint32) pci.Capability {
	le := binary.LittleEndian
	body := []byte{0, typ, bar, 0, 0, 0}
	body = le.AppendUint32(body, offset)
	body = le.AppendUint32(body, length)
	for _, v := range extra {
		body = le.AppendUint32(body, v)
	}
	body[0] = byte(2 + len(body)) // cap_len
	return pci.Capability{ID: capVendor, Body: body}
}

// window carries out an access through the PCI_CFG capability at offset at.
func (t *PCI) window(at int, write bool, p []byte) {
	var b [12]byte
	t.config.Bytes(at+4, b[:]) // bar, id, padding, offset, length
	off := uint64(binary.LittleEndian.Uint32(b[4:]))
	n := uint64(binary.LittleEndian.Uint32(b[8:]))
	if b[0] != bar || n != 1 && n != 2 && n != 4 || off%n != 0 || off+n > barSize {
		return
	}
	if write {
		t.WriteBAR(bar, off, p[:n])
	} else {
		t.ReadBAR(bar, off, p[:n])
	}
}

// SetMultifunction marks the device as having more functions than number 0.
// Before the guest runs.
func (t *PCI) SetMultifunction(on bool) { t.config.SetMultifunction(on) }

// ReadConfig implements pci.Function.
func (t *PCI) ReadConfig(off int, p []byte) {
	t.config.Read(off, p)
	// Without MSI-X the status register shows the ISR status (4.1.4.5.1).
	const status = 0x06
	if off <= status && off+len(p) > status && t.isr.Load() != 0 && !t.msix.Enabled() {
		p[status-off] |= pci.StatusInterrupt
	}
}

// WriteConfig implements pci.Function.
func (t *PCI) WriteConfig(off int, p []byte) { t.config.Write(off, p) }

// BARSize implements pci.Function.
func (t *PCI) BARSize(b int) uint64 { return t.config.BARSize(b) }

// ReadBAR implements pci.Function.
func (t *PCI) ReadBAR(b int, off uint64, p []byte) {
	clear(p)
	if b != bar {
		return
	}
	switch {
	case off < isrAt:
		t.readCommon(off, p)
	case off == isrAt:
		p[0] = byte(t.isr.Swap(0)) // reading clears (4.1.4.5.1)
	case off >= deviceAt && off < notifyAt:
		t.readDevice(int(off-deviceAt), p)
	case off >= msixTableAt && off < msixPBAAt:
		t.msix.ReadTable(off-msixTableAt, p)
	case off >= msixPBAAt:
		t.msix.ReadPBA(off-msixPBAAt, p)
	}
}

// WriteBAR implements pci.Function.
func (t *PCI) WriteBAR(b int, off uint64, p []byte) {
	if b != bar {
		return
	}
	switch {
	case off < isrAt:
		t.writeCommon(off, p)
	case off >= deviceAt && off < notifyAt:
		t.writeDevice(int(off-deviceAt), p)
	case off >= notifyAt && off < msixTableAt:
		if i := int(off-notifyAt) / notifyMultiplier; i < len(t.queueVectors) {
			t.kicks.kick(i)
		}
	case off >= msixTableAt && off < msixPBAAt:
		t.msix.WriteTable(off-msixTableAt, p)
	}
}

// Close gives back what the device has of the machine's. Preconditions: the
// device is reset and its reset is done, and nothing calls its methods any more.
func (t *PCI) Close() error {
	t.live.Store(false)
	t.kicks.close()
	return t.msix.Close()
}
