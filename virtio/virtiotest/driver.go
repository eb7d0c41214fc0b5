package virtiotest

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/virtio/pci"
)

// BARBase is where Probe puts a device's BAR.
const BARBase = 0xe000_0000

// MSIAddr is the message address of every vector; vector i's data is MSIData+i.
const (
	MSIAddr = 0xfee0_0000
	MSIData = 0x4000
)

// Field is a field of the common configuration (4.1.4.3): offset and width in bytes.
type Field struct{ Off, Width uint64 }

// The fields of the common configuration.
var (
	DeviceFeatureSelect = Field{0x00, 4}
	DeviceFeature       = Field{0x04, 4}
	DriverFeatureSelect = Field{0x08, 4}
	DriverFeature       = Field{0x0c, 4}
	ConfigVector        = Field{0x10, 2}
	NumQueues           = Field{0x12, 2}
	DeviceStatus        = Field{0x14, 1}
	ConfigGeneration    = Field{0x15, 1}
	QueueSelect         = Field{0x16, 2}
	QueueSize           = Field{0x18, 2}
	QueueVector         = Field{0x1a, 2}
	QueueEnable         = Field{0x1c, 2}
	QueueNotifyOff      = Field{0x1e, 2}
	QueueDesc           = Field{0x20, 8}
	QueueDriver         = Field{0x28, 8}
	QueueDevice         = Field{0x30, 8}
)

// Types of virtio structures (4.1.4).
const (
	CommonCfg = 1
	NotifyCfg = 2
	ISRCfg    = 3
	DeviceCfg = 4
	PCICfg    = 5
)

// Cap is one entry of the capability chain.
type Cap struct {
	ID     uint8
	Offset int // in configuration space
	Type   uint8
	Bar    uint8
	Off    uint64 // of the structure in the BAR
	Len    uint64
	Mult   uint32 // NotifyCfg
}

// Driver is a guest's driver on one device.
type Driver struct {
	T    testing.TB
	Mem  *Memory
	Host *Host
	F    pci.Function

	Base   uint64 // of BAR 0
	Caps   []Cap
	MSIX   int // offset of the MSI-X capability
	Queues []*Queue

	table uint64 // address of the MSI-X table
	nvecs int
}

// Probe finds the device: it sizes and maps BAR 0, switches on decoding and bus
// mastering, and reads the capabilities.
func Probe(t testing.TB, mem *Memory, host *Host, f pci.Function) *Driver {
	t.Helper()
	d := &Driver{T: t, Mem: mem, Host: host, F: f, Base: BARBase}
	if v := d.Cfg(0, 2); v != 0x1af4 {
		t.Fatalf("vendor %#x is not virtio's", v)
	}
	d.SetCfg(0x10, 4, 0xffff_ffff)
	size := uint64(-uint32(d.Cfg(0x10, 4) &^ 0xf))
	if size != f.BARSize(0) {
		t.Fatalf("BAR 0 has %#x bytes by its size bits, %#x by BARSize", size, f.BARSize(0))
	}
	d.SetCfg(0x10, 4, BARBase)
	d.SetCfg(0x04, 2, pci.CommandMemory|pci.CommandBusMaster|pci.CommandINTxDisable)
	if at := host.BAR(f, 0); at != BARBase {
		t.Fatalf("BAR 0 is mapped at %#x, want %#x", at, uint64(BARBase))
	}
	for off := int(d.Cfg(0x34, 1)); off != 0; off = int(d.Cfg(off+1, 1)) {
		c := Cap{ID: uint8(d.Cfg(off, 1)), Offset: off}
		switch c.ID {
		case 0x09:
			c.Type, c.Bar = uint8(d.Cfg(off+3, 1)), uint8(d.Cfg(off+4, 1))
			c.Off, c.Len = uint64(d.Cfg(off+8, 4)), uint64(d.Cfg(off+12, 4))
			if c.Type == NotifyCfg {
				c.Mult = d.Cfg(off+16, 4)
			}
		case 0x11:
			d.MSIX = off
			d.nvecs = int(d.Cfg(off+2, 2)&0x7ff) + 1
			d.table = d.Base + uint64(d.Cfg(off+4, 4)&^7)
		}
		d.Caps = append(d.Caps, c)
		if len(d.Caps) > 48 {
			t.Fatal("capability chain has a loop")
		}
	}
	return d
}

// Cfg and SetCfg access configuration space.
func (d *Driver) Cfg(off, width int) uint32 {
	var b [4]byte
	d.F.ReadConfig(off, b[:width])
	return binary.LittleEndian.Uint32(b[:])
}

func (d *Driver) SetCfg(off, width int, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	d.F.WriteConfig(off, b[:width])
}

// Structure returns the first structure of a type.
func (d *Driver) Structure(typ uint8) Cap {
	d.T.Helper()
	for _, c := range d.Caps {
		if c.ID == 0x09 && c.Type == typ {
			return c
		}
	}
	d.T.Fatalf("device has no structure of type %d", typ)
	return Cap{}
}

// At returns the guest address of a structure.
func (d *Driver) At(typ uint8) uint64 { return d.Base + d.Structure(typ).Off }

// Get reads a field of the common configuration, 64-bit ones as halves.
func (d *Driver) Get(f Field) uint64 {
	d.T.Helper()
	if f.Width == 8 {
		return d.Get(Field{f.Off, 4}) | d.Get(Field{f.Off + 4, 4})<<32
	}
	var b [8]byte
	d.Host.Load(d.At(CommonCfg)+f.Off, b[:f.Width])
	return binary.LittleEndian.Uint64(b[:])
}

// Set writes a field of the common configuration, 64-bit ones as halves.
func (d *Driver) Set(f Field, v uint64) {
	d.T.Helper()
	if f.Width == 8 {
		d.Set(Field{f.Off, 4}, v&0xffffffff)
		d.Set(Field{f.Off + 4, 4}, v>>32)
		return
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	d.Host.Store(d.At(CommonCfg)+f.Off, b[:f.Width])
}

// Status reads the device status.
func (d *Driver) Status() uint8 { d.T.Helper(); return uint8(d.Get(DeviceStatus)) }

// SetStatus adds bits to the device status.
func (d *Driver) SetStatus(bits uint8) {
	d.T.Helper()
	d.Set(DeviceStatus, uint64(d.Status()|bits))
}

// DeviceFeatures reads the offered features.
func (d *Driver) DeviceFeatures() uint64 {
	d.T.Helper()
	d.Set(DeviceFeatureSelect, 0)
	f := d.Get(DeviceFeature)
	d.Set(DeviceFeatureSelect, 1)
	return f | d.Get(DeviceFeature)<<32
}

// SetDriverFeatures writes the accepted features.
func (d *Driver) SetDriverFeatures(f uint64) {
	d.T.Helper()
	d.Set(DriverFeatureSelect, 0)
	d.Set(DriverFeature, f&0xffffffff)
	d.Set(DriverFeatureSelect, 1)
	d.Set(DriverFeature, f>>32)
}

// Reset writes 0 to the status and waits until it reads back 0.
func (d *Driver) Reset() {
	d.T.Helper()
	d.Set(DeviceStatus, 0)
	Eventually(d.T, "the device is reset", func() bool { return d.Status() == 0 })
}

// Negotiate goes from reset to FEATURES_OK with exactly these features.
func (d *Driver) Negotiate(features uint64) {
	d.T.Helper()
	d.Reset()
	d.SetStatus(1) // ACKNOWLEDGE
	d.SetStatus(2) // DRIVER
	d.SetDriverFeatures(features)
	d.SetStatus(8) // FEATURES_OK
	if d.Status()&8 == 0 {
		d.T.Fatalf("features %#x refused", features)
	}
}

// EnableMSIX fills every entry of the table, as Linux does with all of them masked
// first, and switches MSI-X on.
func (d *Driver) EnableMSIX() {
	d.T.Helper()
	const enable, maskAll = 1 << 15, 1 << 14
	d.SetCfg(d.MSIX+2, 2, enable|maskAll)
	for i := range d.nvecs {
		d.SetEntry(i, MSIAddr, MSIData+uint32(i), false)
	}
	d.SetCfg(d.MSIX+2, 2, enable)
}

// SetEntry writes an entry of the MSI-X table, masking it meanwhile.
func (d *Driver) SetEntry(i int, addr uint64, data uint32, masked bool) {
	d.T.Helper()
	at := d.table + 16*uint64(i)
	d.Store32(at+12, 1)
	d.Store32(at, uint32(addr))
	d.Store32(at+4, uint32(addr>>32))
	d.Store32(at+8, data)
	if !masked {
		d.Store32(at+12, 0)
	}
}

// MaskEntry sets or clears an entry's mask bit.
func (d *Driver) MaskEntry(i int, masked bool) {
	d.T.Helper()
	v := uint32(0)
	if masked {
		v = 1
	}
	d.Store32(d.table+16*uint64(i)+12, v)
}

// NumVectors is the size of the MSI-X table.
func (d *Driver) NumVectors() int { return d.nvecs }

// Vector returns the machine's line behind MSI-X entry i.
func (d *Driver) Vector(i int) *Vector {
	d.T.Helper()
	v := d.Host.Vector(MSIData + uint32(i))
	if v == nil {
		d.T.Fatalf("no line is routed for MSI-X vector %d", i)
	}
	return v
}

// Store32 and Load32 access memory-mapped registers.
func (d *Driver) Store32(addr uint64, v uint32) {
	d.T.Helper()
	d.Host.Store(addr, binary.LittleEndian.AppendUint32(nil, v))
}

func (d *Driver) Load32(addr uint64) uint32 {
	d.T.Helper()
	var b [4]byte
	d.Host.Load(addr, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// DeviceConfig reads n bytes of the device-specific configuration, as one access
// if n is 1, 2 or 4, else as a driver reads longer fields: until the generation stands still.
func (d *Driver) DeviceConfig(off uint64, n int) []byte {
	d.T.Helper()
	p := make([]byte, n)
	at := d.At(DeviceCfg) + off
	if n <= 4 && n != 3 {
		d.Host.Load(at, p)
		return p
	}
	for range 100 {
		before := d.Get(ConfigGeneration)
		for i := range p {
			d.Host.Load(at+uint64(i), p[i:i+1])
		}
		if d.Get(ConfigGeneration) == before {
			return p
		}
	}
	d.T.Fatal("the device configuration keeps changing")
	return nil
}

// SetDeviceConfig writes to the device-specific configuration.
func (d *Driver) SetDeviceConfig(off uint64, p ...byte) {
	d.T.Helper()
	d.Host.Store(d.At(DeviceCfg)+off, p)
}

// ISR reads (and so clears) the ISR status.
func (d *Driver) ISR() uint8 {
	d.T.Helper()
	var b [1]byte
	d.Host.Load(d.At(ISRCfg), b[:])
	return b[0]
}

// Setup says how Start brings a device up.
type Setup struct {
	Features  uint64 // accepted; 0: all offered ones
	QueueSize int    // 0: what the device offers
	Queues    int    // enabled; 0: all
	NoMSIX    bool
	Skew      bool // available rings at 2 mod 4, used rings at 4 mod 8
}

// Start brings the device up to DRIVER_OK: vector 0 for configuration changes,
// vector i+1 for queue i.
func (d *Driver) Start(s Setup) {
	d.T.Helper()
	d.Prepare(s)
	d.SetStatus(4) // DRIVER_OK
}

// Prepare is Start without DRIVER_OK.
func (d *Driver) Prepare(s Setup) {
	d.T.Helper()
	if s.Features == 0 {
		s.Features = d.DeviceFeatures()
	}
	d.Negotiate(s.Features)
	if !s.NoMSIX {
		d.EnableMSIX()
		d.Set(ConfigVector, 0)
		if v := d.Get(ConfigVector); v != 0 {
			d.T.Fatalf("config_msix_vector reads %#x", v)
		}
	}
	n := int(d.Get(NumQueues))
	if s.Queues > 0 {
		n = s.Queues
	}
	d.Queues = nil
	for i := range n {
		d.Queues = append(d.Queues, d.setupQueue(i, s))
	}
}

func (d *Driver) setupQueue(i int, s Setup) *Queue {
	d.T.Helper()
	d.Set(QueueSelect, uint64(i))
	size := s.QueueSize
	if size == 0 {
		size = int(d.Get(QueueSize))
	}
	d.Set(QueueSize, uint64(size))
	q := newQueue(d, i, size, s)
	d.Set(QueueDesc, q.Desc)
	d.Set(QueueDriver, q.Avail)
	d.Set(QueueDevice, q.UsedAddr)
	if !s.NoMSIX {
		d.Set(QueueVector, uint64(i+1))
		if v := d.Get(QueueVector); v != uint64(i+1) {
			d.T.Fatalf("queue_msix_vector of queue %d reads %#x", i, v)
		}
		q.vector = d.Vector(i + 1)
	}
	c := d.Structure(NotifyCfg)
	q.notify = d.Base + c.Off + d.Get(QueueNotifyOff)*uint64(c.Mult)
	d.Set(QueueEnable, 1)
	if d.Get(QueueEnable) != 1 {
		d.T.Fatalf("queue %d was not enabled", i)
	}
	return q
}

// Deadline is how long anything may take before a test gives up on it.
const Deadline = 20 * time.Second

// Eventually waits for a condition that another goroutine brings about and that
// nothing signals.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Deadline); !cond(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
