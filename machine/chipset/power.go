package chipset

import (
	"encoding/binary"
	"sync"
)

// SleepTypeS5 is the SLP_TYP that powers off, as the DSDT's \_S5 names it.
const SleepTypeS5 = 5

// PM1PortCount is how many ports Power takes: status and enable (2 bytes each),
// then control (2 bytes).
const (
	PM1PortCount  = 6
	PM1ControlOff = 4 // offset of the control register
)

const (
	pm1PowerButton = 1 << 8
	pm1Global      = 1 << 5
	pm1Timer       = 1 << 0
	pm1RTC         = 1 << 10
	pm1Wake        = 1 << 15
	pm1Enables     = pm1PowerButton | pm1Global | pm1Timer | pm1RTC

	pm1SCIEnable = 1 << 0
	pm1SleepType = 7 << 10
	pm1Sleep     = 1 << 13
)

// Power is the fixed power management hardware of ACPI 6.5, 4.8.3: the PM1 event
// and control blocks with a power button.
type Power struct {
	sci Line
	off func()

	mu             sync.Mutex
	status, enable uint16
	control        uint16
	high           bool
}

// NewPower returns the hardware; the guest's powering off calls off, on a vCPU's
// goroutine.
func NewPower(sci Line, off func()) *Power {
	return &Power{sci: sci, off: off, control: pm1SCIEnable}
}

// PressButton asks the guest to shut down. Any goroutine.
func (w *Power) PressButton() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status |= pm1PowerButton
	w.update()
}

// Read implements bus.Handler.
func (w *Power) Read(off uint64, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var regs [8]byte
	w.registers(&regs)
	copy(p, regs[off:])
}

func (w *Power) registers(regs *[8]byte) {
	binary.LittleEndian.PutUint16(regs[0:], w.status)
	binary.LittleEndian.PutUint16(regs[2:], w.enable)
	binary.LittleEndian.PutUint16(regs[4:], w.control)
}

// Write implements bus.Handler.
func (w *Power) Write(off uint64, p []byte) {
	if w.write(off, p) {
		w.off()
	}
}

// write reports whether the guest powered off.
func (w *Power) write(off uint64, p []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	var regs [8]byte
	w.registers(&regs)
	clear(regs[0:2]) // status bits are cleared by writing ones, so zeroes keep them
	copy(regs[off:], p)
	w.status &^= binary.LittleEndian.Uint16(regs[0:])
	w.enable = binary.LittleEndian.Uint16(regs[2:]) & pm1Enables
	control := binary.LittleEndian.Uint16(regs[4:])
	w.control = control&^pm1Sleep | pm1SCIEnable // there is no other mode than ACPI's
	w.update()
	return control&pm1Sleep != 0 && control&pm1SleepType == SleepTypeS5<<10
}

func (w *Power) update() {
	high := w.status&w.enable&^uint16(pm1Wake) != 0
	if high != w.high {
		w.high = high
		w.sci(high)
	}
}
