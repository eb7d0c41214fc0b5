package pci

import (
	"encoding/binary"
	"sync"
)

// RootPort is a PCI Express root port with one hotplug slot: a bridge to a bus of
// its own with a single device on it (PCI Express Base Specification 5.0, 6.7 and
// 7.5.3). It has the registers and the interrupt; what is in the slot, and whether
// it answers, is its owner's business:
//
//	owner                     port                              guest (pciehp)
//	Insert ──────────────▶ presence, attention button ──MSI──▶ powers the slot on
//	Changed ◀──────────── Powered                    ◀───────── slot control
//	SetLink(true) ───────▶ link active               ──MSI──▶ finds the device, uses it
//
//	PressButton ─────────▶ attention button          ──MSI──▶ lets the device go
//	Changed ◀──────────── !Powered                   ◀───────── slot control
//	SetLink(false), Eject ▶ link down, slot empty    ──MSI──▶
//
// The port has a power controller, a power indicator and an attention button, no
// latch and no attention indicator, and no windows for I/O and prefetchable memory.
// Every command completes at once, so it never says that one has (7.5.3.9). It does
// not look at its memory window: a BAR behind it answers wherever the guest puts it.
type RootPort struct {
	config  *Config
	msi     *msi
	cap     int // offset of the PCI Express capability
	changed func()
	failed  func(error)

	mu       sync.Mutex
	notified bool // an enabled event is pending: the message was sent (6.7.3.4)
	seen     portState
}

// portState is what the owner of a port reacts to.
type portState struct {
	powered   bool
	indicator Indicator
	listening bool
}

// Indicator is what the guest shows with the slot's power indicator (7.5.3.10).
type Indicator uint8

// Values of the power indicator control field.
const (
	IndicatorOn    Indicator = 1
	IndicatorBlink Indicator = 2 // the slot is being turned on or off
	IndicatorOff   Indicator = 3
)

// Offsets and bits of the type 1 configuration header (PCI-to-PCI Bridge
// Architecture Specification 1.2, 3.2).
const (
	regPrimaryBus    = 0x18
	regSecondaryBus  = 0x19
	regSubordinate   = 0x1a
	regMemoryBase    = 0x20
	regMemoryLimit   = 0x22
	regBridgeControl = 0x3e

	headerBridge       = 1
	bridgeParity       = 1 << 0
	bridgeSERR         = 1 << 1
	bridgeSecondaryRst = 1 << 6
)

// The PCI Express capability (7.5.3), offsets from its start.
const (
	capExpress = 0x10

	expFlags       = 0x02
	expDevCap      = 0x04
	expDevControl  = 0x08
	expLinkCap     = 0x0c
	expLinkControl = 0x10
	expLinkStatus  = 0x12
	expSlotCap     = 0x14
	expSlotControl = 0x18
	expSlotStatus  = 0x1a
	expRootControl = 0x1c
	expSize        = 0x3c

	expVersion    = 2
	expRootPort   = 4 << 4
	expSlot       = 1 << 8  // slot implemented
	devRoleErrors = 1 << 15 // role-based error reporting, which 1.1 and later must have

	link2500MTs        = 1       // speed 2.5 GT/s
	linkWidth1         = 1 << 4  // one lane
	linkCapReporting   = 1 << 20 // data link layer link active is reported
	linkControlDisable = 1 << 4
	linkStatusActive   = 1 << 13

	slotCapButton    = 1 << 0
	slotCapPower     = 1 << 1
	slotCapIndicator = 1 << 4
	slotCapHotplug   = 1 << 6
	slotCapNoCommand = 1 << 18 // no command completed notification
	slotCapNumber    = 19      // shift

	// Events: the same bits enable them in slot control and report them in slot status.
	slotButtonPressed   = 1 << 0
	slotPowerFault      = 1 << 1
	slotLatchChanged    = 1 << 2
	slotPresenceChanged = 1 << 3
	slotCommandDone     = 1 << 4

	slotControlInterrupt   = 1 << 5
	slotControlIndicator   = 8 // shift of 2 bits
	slotControlPowerOff    = 1 << 10
	slotControlLinkChanged = 1 << 12

	slotStatusPresent     = 1 << 6
	slotStatusLinkChanged = 1 << 8
)

// rootPortID is that of QEMU's generic PCI Express root port.
var rootPortID = ID{Vendor: 0x1b36, Device: 0x000c, Class: 0x060400}

// NewRootPort makes a port whose slot is empty and off. number is the slot's
// physical number, 1 to 8191, unique in the machine. changed is told, without
// locks of this package held, after the guest changed what Powered,
// PowerIndicator or Listening return; failed, that an interrupt can't be delivered.
func NewRootPort(number int, host Host, changed func(), failed func(error)) *RootPort {
	p := &RootPort{config: NewConfig(rootPortID), changed: changed, failed: failed}
	c := p.config
	c.data[regHeader] = headerBridge
	le := binary.LittleEndian
	for off := regPrimaryBus; off <= regSubordinate; off++ {
		c.mask[off] = 0xff
	}
	le.PutUint16(c.mask[regMemoryBase:], 0xfff0)
	le.PutUint16(c.mask[regMemoryLimit:], 0xfff0)
	le.PutUint16(c.data[regMemoryBase:], 0xfff0) // base above limit: no window
	le.PutUint16(c.mask[regBridgeControl:], bridgeParity|bridgeSERR|bridgeSecondaryRst)

	p.msi = newMSI(c, host)
	body := make([]byte, expSize)
	le.PutUint16(body[expFlags:], expVersion|expRootPort|expSlot)
	le.PutUint32(body[expDevCap:], devRoleErrors)
	le.PutUint32(body[expLinkCap:], link2500MTs|linkWidth1|linkCapReporting|uint32(number&0xff)<<24)
	le.PutUint16(body[expLinkStatus:], link2500MTs|linkWidth1)
	le.PutUint32(body[expSlotCap:], slotCapButton|slotCapPower|slotCapIndicator|slotCapHotplug|slotCapNoCommand|uint32(number)<<slotCapNumber)
	le.PutUint16(body[expSlotControl:], slotControlPowerOff|uint16(IndicatorOff)<<slotControlIndicator)
	writable := make([]byte, expSize)
	le.PutUint16(writable[expDevControl:], 0x000f) // error reporting; the payload is 128 bytes, whatever is set
	le.PutUint16(writable[expLinkControl:], 0x00cb|linkControlDisable)
	le.PutUint16(writable[expSlotControl:], slotButtonPressed|slotPowerFault|slotLatchChanged|slotPresenceChanged|slotCommandDone|
		slotControlInterrupt|3<<slotControlIndicator|slotControlPowerOff|slotControlLinkChanged)
	le.PutUint16(writable[expRootControl:], 0x000f)
	clears := make([]byte, expSize)
	le.PutUint16(clears[expSlotStatus:], slotButtonPressed|slotPowerFault|slotLatchChanged|slotPresenceChanged|slotCommandDone|slotStatusLinkChanged)
	p.cap = c.AddCapability(Capability{ID: capExpress, Body: body[2:], Writable: writable[2:], Clears: clears[2:]})
	le.PutUint16(c.owned[p.cap+expSlotStatus:], slotStatusPresent)
	le.PutUint16(c.owned[p.cap+expLinkStatus:], linkStatusActive)
	p.seen = p.state()
	return p
}

var _ Function = (*RootPort)(nil)

// ReadConfig implements Function.
func (p *RootPort) ReadConfig(off int, b []byte) { p.config.Read(off, b) }

// WriteConfig implements Function.
func (p *RootPort) WriteConfig(off int, b []byte) {
	p.mu.Lock()
	p.config.Write(off, b)
	p.notify()
	// States are compared rather than single writes followed, so that two vCPUs that write at once can't hide the last change.
	now := p.state()
	differs := now != p.seen
	p.seen = now
	p.mu.Unlock()
	if differs && p.changed != nil {
		p.changed()
	}
}

// BARSize, ReadBAR and WriteBAR implement Function; the port has no BAR.
func (p *RootPort) BARSize(int) uint64                { return 0 }
func (p *RootPort) ReadBAR(_ int, _ uint64, b []byte) { clear(b) }
func (p *RootPort) WriteBAR(int, uint64, []byte)      {}

// SetMultifunction says that the device has other functions than number 0. Before the guest runs.
func (p *RootPort) SetMultifunction(on bool) { p.config.SetMultifunction(on) }

// SetWindow assigns the memory window, from base to limit, its last byte, multiples of
// 1 MiB, as firmware would. Before the guest runs.
func (p *RootPort) SetWindow(base, limit uint32) {
	window := binary.LittleEndian.AppendUint16(nil, uint16(base>>16))
	window = binary.LittleEndian.AppendUint16(window, uint16(limit>>16))
	p.config.Write(regMemoryBase, window)
	p.config.Write(regCommand, []byte{CommandMemory, 0})
}

// SecondaryBus is the number of the bus behind the port, 0 if the guest gave it none.
func (p *RootPort) SecondaryBus() uint8 {
	var b [1]byte
	p.config.Bytes(regSecondaryBus, b[:])
	return b[0]
}

// Powered reports whether what is in the slot should run: the guest has its power
// on, its link enabled and its bus not in reset.
func (p *RootPort) Powered() bool { return p.state().powered }

// PowerIndicator returns what the guest shows; values other than the three named
// ones mean nothing.
func (p *RootPort) PowerIndicator() Indicator { return p.state().indicator }

// Listening reports whether the guest wants to know when the button is pressed. Before
// that, while it boots, a press may be lost on it.
func (p *RootPort) Listening() bool { return p.state().listening }

func (p *RootPort) state() portState {
	c := p.config
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := c.uint16(p.cap + expSlotControl)
	return portState{
		powered: slot&slotControlPowerOff == 0 &&
			c.uint16(p.cap+expLinkControl)&linkControlDisable == 0 &&
			c.uint16(regBridgeControl)&bridgeSecondaryRst == 0,
		indicator: Indicator(slot >> slotControlIndicator & 3),
		listening: slot&slotButtonPressed != 0,
	}
}

// Preset puts a device into the slot and powers it on, as firmware leaves a slot
// that was occupied at reset: nothing has happened that the guest should be told.
// Before the guest runs.
func (p *RootPort) Preset() {
	p.config.change(p.cap+expSlotControl, slotControlPowerOff|3<<slotControlIndicator, uint16(IndicatorOn)<<slotControlIndicator)
	p.config.change(p.cap+expSlotStatus, 0, slotStatusPresent)
	p.config.change(p.cap+expLinkStatus, 0, linkStatusActive)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = p.state()
}

// Insert puts a device into the slot and presses the button, in one event: Linux
// then powers the slot on without the five seconds it gives whoever presses the
// button to think again. Any goroutine, as for what follows.
func (p *RootPort) Insert() { p.event(0, slotStatusPresent|slotPresenceChanged|slotButtonPressed) }

// PressButton asks the guest to let the device go (to turn the slot on, if it is off).
func (p *RootPort) PressButton() { p.event(0, slotButtonPressed) }

// Eject takes the device out of the slot.
func (p *RootPort) Eject() { p.event(slotStatusPresent, slotPresenceChanged) }

// SetLink says whether the device answers.
func (p *RootPort) SetLink(up bool) {
	set := uint16(0)
	if up {
		set = linkStatusActive
	}
	p.config.change(p.cap+expLinkStatus, linkStatusActive, set)
	p.event(0, slotStatusLinkChanged)
}

func (p *RootPort) event(clear, set uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config.change(p.cap+expSlotStatus, clear, set)
	p.notify()
}

// notify sends the message when there comes to be an enabled event that is not
// dealt with (6.7.3.4): only that edge, never again before all of them are gone. mu is held, and was when events came
// or went: else one that comes just after the guest has dealt with the last would be no edge.
func (p *RootPort) notify() {
	pending := p.pending() && p.msi.enabled()
	if pending && !p.notified {
		if err := p.msi.signal(); err != nil && p.failed != nil {
			p.failed(err)
		}
	}
	p.notified = pending
}

func (p *RootPort) pending() bool {
	c := p.config
	c.mu.Lock()
	defer c.mu.Unlock()
	control, status := c.uint16(p.cap+expSlotControl), c.uint16(p.cap+expSlotStatus)
	if control&slotControlInterrupt == 0 {
		return false
	}
	const events = slotButtonPressed | slotPowerFault | slotLatchChanged | slotPresenceChanged | slotCommandDone
	return control&status&events != 0 || control&slotControlLinkChanged != 0 && status&slotStatusLinkChanged != 0
}

// Close gives the port's interrupt back. The guest doesn't run any more, and
// nothing else calls the port.
func (p *RootPort) Close() error { return p.msi.close() }
