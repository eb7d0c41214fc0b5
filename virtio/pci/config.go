package pci

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
)

// Offsets and bits of the type 0 configuration header (PCI 3.0, 6.1).
const (
	regVendor    = 0x00
	regDevice    = 0x02
	regCommand   = 0x04
	regStatus    = 0x06
	regRevision  = 0x08
	regClass     = 0x09 // three bytes: programming interface, subclass, class
	regHeader    = 0x0e
	regBAR0      = 0x10
	regSubVendor = 0x2c
	regSubDevice = 0x2e
	regCapPtr    = 0x34
	regIRQLine   = 0x3c
	firstCap     = 0x40

	// Bits of the command register.
	CommandMemory      = 1 << 1  // memory BARs are decoded
	CommandBusMaster   = 1 << 2  // the function may write messages (MSI-X)
	CommandINTxDisable = 1 << 10 // meaningless without an interrupt pin, but writable

	// StatusInterrupt says that an INTx interrupt is pending (PCI 3.0, 6.2.3).
	StatusInterrupt = 1 << 3
	statusCapList   = 1 << 4

	headerMultifunction = 0x80

	// ConfigSize is the size of the configuration space in bytes.
	ConfigSize = 256

	numBARs = 6
)

// ID is what a function says it is.
type ID struct {
	Vendor, Device                   uint16
	SubsystemVendor, SubsystemDevice uint16
	Revision                         uint8
	Class                            uint32 // 24 bits: class, subclass, programming interface; 0x018000 is "other mass storage"
}

// Config is the configuration space of a function with a type 0 header. Make it
// with NewConfig, add BARs and capabilities, Bind it; from then on Read and Write
// may be called from any goroutine. Putting it together wrongly (overlapping or
// too large) panics: that is a mistake in the program, never in its input.
type Config struct {
	mu   sync.Mutex
	data [ConfigSize]byte
	mask [ConfigSize]byte // bits a guest's write changes
	rw1c [ConfigSize]byte // bits a guest clears by writing 1

	owned [ConfigSize]byte // other bits that change, on the function's own account (change); fixed after Bind

	// Fixed after Bind.
	barSize [numBARs]uint64
	caps    []capability
	nextCap int // where the next capability goes
	lastPtr int // the byte that has to point at it
	bound   *Binding

	// mapMu guards what the host was told. It is taken after mu was released, so
	// that reading configuration space never waits for the host.
	mapMu  sync.Mutex
	mapped [numBARs]uint64
}

// Binding connects a Config to its function and machine.
type Binding struct {
	Function Function
	Host     Host

	// Moved, if set, is told after a BAR was mapped, and with addr 0 before it is
	// unmapped. Calls for one Config never overlap.
	Moved func(bar int, addr uint64)

	// Command, if set, is told after the command register was written.
	Command func()

	// Failed, if set, is told that the host did not take a BAR, which stays unmapped.
	Failed func(bar int, addr uint64, err error)
}

// Capability is one entry of the capability chain.
type Capability struct {
	ID       uint8
	Body     []byte // what follows the two bytes ID and next pointer
	Writable []byte // bits of Body a guest may change; shorter or nil: the rest is read-only
	Clears   []byte // bits of Body a guest clears by writing 1 (RW1C); as Writable

	// Written, if set, is called after a guest wrote to Body, without locks held:
	// with several vCPUs it has to read the current value by itself.
	Written func()

	// Window, if set, handles accesses that touch the last len(p) = 4 bytes of Body
	// (PCI_CFG, see package virtio). On write p holds what the guest stored; on read it is filled.
	Window func(write bool, p []byte)
}

type capability struct {
	Capability
	off, end int // of the body, in configuration space
}

// NewConfig returns a configuration space without BARs and capabilities.
func NewConfig(id ID) *Config {
	c := &Config{nextCap: firstCap, lastPtr: regCapPtr}
	le := binary.LittleEndian
	le.PutUint16(c.data[regVendor:], id.Vendor)
	le.PutUint16(c.data[regDevice:], id.Device)
	c.data[regRevision] = id.Revision
	c.data[regClass] = byte(id.Class)
	c.data[regClass+1] = byte(id.Class >> 8)
	c.data[regClass+2] = byte(id.Class >> 16)
	le.PutUint16(c.data[regSubVendor:], id.SubsystemVendor)
	le.PutUint16(c.data[regSubDevice:], id.SubsystemDevice)
	le.PutUint16(c.mask[regCommand:], CommandMemory|CommandBusMaster|CommandINTxDisable)
	c.mask[regIRQLine] = 0xff // scratch for software, no effect
	return c
}

// SetMultifunction sets the header bit that says the device has more functions
// than number 0. Before the guest runs.
func (c *Config) SetMultifunction(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if on {
		c.data[regHeader] |= headerMultifunction
	} else {
		c.data[regHeader] &^= headerMultifunction
	}
}

// AddBAR implements a 32-bit, non-prefetchable memory BAR of size bytes, a power
// of two and at least 16. Before Bind.
func (c *Config) AddBAR(bar int, size uint64) {
	if bar < 0 || bar >= numBARs || size < 16 || size > 1<<31 || bits.OnesCount64(size) != 1 {
		panic(fmt.Sprintf("pci: BAR %d of %#x bytes", bar, size))
	}
	c.barSize[bar] = size
	binary.LittleEndian.PutUint32(c.mask[regBAR0+4*bar:], uint32(-size))
}

// AddCapability appends to the capability chain and returns the offset of the
// capability's first byte (its ID). Before Bind.
func (c *Config) AddCapability(k Capability) int {
	off := c.nextCap
	end := off + 2 + len(k.Body)
	if end > ConfigSize || len(k.Writable) > len(k.Body) || len(k.Clears) > len(k.Body) {
		panic(fmt.Sprintf("pci: capability %#x with %d bytes at %#x", k.ID, len(k.Body), off))
	}
	c.data[off] = k.ID
	copy(c.data[off+2:], k.Body)
	copy(c.mask[off+2:], k.Writable)
	copy(c.rw1c[off+2:], k.Clears)
	c.data[c.lastPtr] = byte(off)
	c.lastPtr = off + 1
	c.nextCap = (end + 3) &^ 3
	c.data[regStatus] |= statusCapList
	c.caps = append(c.caps, capability{Capability: k, off: off + 2, end: end})
	return off
}

// Bind says who carries out what a guest writes. At most once, before the first Write.
func (c *Config) Bind(b Binding) { c.bound = &b }

// BARSize returns the size of a BAR in bytes, 0 if it is not implemented.
func (c *Config) BARSize(bar int) uint64 {
	if bar < 0 || bar >= numBARs {
		return 0
	}
	return c.barSize[bar]
}

// Command returns the command register.
func (c *Config) Command() uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.uint16(regCommand)
}

// Read fills p from configuration space; beyond its end there are zeroes.
func (c *Config) Read(off int, p []byte) {
	if off < 0 {
		clear(p)
		return
	}
	if k := c.touching(off, len(p)); k != nil && k.Window != nil && off+len(p) > k.end-4 {
		c.refreshWindow(k)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	if off < ConfigSize {
		n = copy(p, c.data[off:])
	}
	clear(p[n:])
}

// refreshWindow executes the access behind a read of a capability's window.
func (c *Config) refreshWindow(k *capability) {
	var w [4]byte
	c.mu.Lock()
	copy(w[:], c.data[k.end-4:k.end])
	c.mu.Unlock()
	k.Window(false, w[:])
	c.mu.Lock()
	copy(c.data[k.end-4:k.end], w[:])
	c.mu.Unlock()
}

// Write stores p as far as the bits are writable, and returns when everything
// that follows from it (BARs mapped, interrupts unmasked) has happened.
func (c *Config) Write(off int, p []byte) {
	if off < 0 || off >= ConfigSize {
		return
	}
	end := min(off+len(p), ConfigSize)
	k := c.touching(off, len(p))
	window := k != nil && k.Window != nil && end > k.end-4
	var w [4]byte

	c.mu.Lock()
	for i := off; i < end; i++ {
		c.data[i] = (c.data[i]&^c.mask[i] | p[i-off]&c.mask[i]) &^ (p[i-off] & c.rw1c[i])
	}
	if window {
		copy(w[:], c.data[k.end-4:k.end])
	}
	c.mu.Unlock()

	if c.bound == nil {
		return
	}
	command := off < regCommand+2 && end > regCommand
	if command || off < regBAR0+4*numBARs && end > regBAR0 {
		c.remap()
	}
	if command && c.bound.Command != nil {
		c.bound.Command()
	}
	if k != nil && k.Written != nil {
		k.Written()
	}
	if window {
		k.Window(true, w[:])
	}
}

// touching returns the capability whose body overlaps [off, off+n).
func (c *Config) touching(off, n int) *capability {
	if off+n <= firstCap {
		return nil
	}
	for i := range c.caps {
		if k := &c.caps[i]; off < k.end && off+n > k.off {
			return k
		}
	}
	return nil
}

// uint16 and uint32 read little-endian values; c.mu is held.
func (c *Config) uint16(off int) uint16 { return binary.LittleEndian.Uint16(c.data[off:]) }
func (c *Config) uint32(off int) uint32 { return binary.LittleEndian.Uint32(c.data[off:]) }

// Bytes copies len(p) bytes from off, without any window's effect: how a
// capability's owner reads what the guest stored.
func (c *Config) Bytes(off int, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	copy(p, c.data[off:])
}

// change clears and then sets bits of the 16-bit register at off, on the device's
// own account: write masks don't apply.
func (c *Config) change(off int, clear, set uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	binary.LittleEndian.PutUint16(c.data[off:], c.uint16(off)&^clear|set)
}
