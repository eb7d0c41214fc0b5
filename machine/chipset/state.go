package chipset

import (
	"errors"
	"fmt"
	"time"
)

// What the devices carry to another host. A Load is given the state of the same
// device, before the guest runs; what no such device can have said is refused, and
// then nothing has changed.
//
// A Load drives the device's interrupt line. KVM's interrupt controllers are loaded
// afterwards, and have to be: their state says what is latched and delivered, but not
// at which level their inputs are. What they have latched is that of the source then, and so
// Resumed drives the line once more: it may be up for what happened by the move.

// SerialState is a 16550A's registers and what it has received. What it sent and
// nobody took yet stays where it is, to be written out there.
type SerialState struct {
	IER      byte
	FIFO     bool
	LCR, MCR byte
	Scratch  byte
	Divisor  uint16
	Received []byte // at most 16 bytes, oldest first
	Overrun  bool
	THRE     bool // a transmit interrupt is pending
}

// Save returns the state. Any goroutine; the guest doesn't run.
func (s *Serial) Save() SerialState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SerialState{
		IER: s.ier, FIFO: s.fifo, LCR: s.lcr, MCR: s.mcr, Scratch: s.scratch,
		Divisor:  uint16(s.divisor[0]) | uint16(s.divisor[1])<<8,
		Received: append([]byte{}, s.received...),
		Overrun:  s.overrun,
		// A transmitter that is busy becomes free by the move.
		THRE: s.thre || !s.room(),
	}
}

// Load takes a state over.
func (s *Serial) Load(st SerialState) error {
	switch {
	case st.IER > 0x0f:
		return fmt.Errorf("serial port: interrupt enable register %#x", st.IER)
	case st.MCR > 0x1f:
		return fmt.Errorf("serial port: modem control register %#x", st.MCR)
	case len(st.Received) > fifoSize:
		return fmt.Errorf("serial port: %d bytes received, the FIFO has %d", len(st.Received), fifoSize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ier, s.fifo, s.lcr, s.mcr, s.scratch = st.IER, st.FIFO, st.LCR, st.MCR, st.Scratch
	s.divisor = [2]byte{byte(st.Divisor), byte(st.Divisor >> 8)}
	s.received = append(s.received[:0], st.Received...)
	s.overrun, s.thre = st.Overrun, st.THRE
	s.input.Broadcast()
	s.update()
	return nil
}

// Resumed drives the interrupt line anew, so that the guest looks at what is pending. After the load of the interrupt
// controllers, before the guest runs.
func (s *Serial) Resumed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.irq(false)
	s.irq(s.high)
}

// Hold has Input wait: what it takes now would not be in the state. Let undoes it.
func (s *Serial) Hold() { s.setHeld(true) }

// Let undoes Hold.
func (s *Serial) Let() { s.setHeld(false) }

func (s *Serial) setHeld(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
	s.input.Broadcast()
}

// PowerState is the PM1 registers (ACPI 6.5, 4.8.3).
type PowerState struct {
	Status, Enable, Control uint16
}

// Save returns the state. Any goroutine; the guest doesn't run.
func (w *Power) Save() PowerState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return PowerState{Status: w.status, Enable: w.enable, Control: w.control}
}

// Load takes a state over.
func (w *Power) Load(st PowerState) error {
	switch {
	case st.Status&^pm1PowerButton != 0:
		return fmt.Errorf("power management: status register %#x", st.Status)
	case st.Enable&^pm1Enables != 0:
		return fmt.Errorf("power management: enable register %#x", st.Enable)
	case st.Control&pm1SCIEnable == 0 || st.Control&pm1Sleep != 0:
		return fmt.Errorf("power management: control register %#x", st.Control)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status, w.enable, w.control = st.Status, st.Enable, st.Control
	w.update()
	return nil
}

// Resumed drives the interrupt line anew, as Serial.Resumed.
func (w *Power) Resumed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sci(false)
	w.sci(w.high)
}

// CMOSState is the clock's memory, and how far the guest set it off the host's clock,
// in nanoseconds. The time itself isn't part of it: it goes on by the host's clock, with an offset for another host's.
type CMOSState struct {
	Index  byte
	RAM    []byte // 128 bytes
	Offset int64
}

// Save returns the state. Any goroutine; the guest doesn't run.
func (c *CMOS) Save() CMOSState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return CMOSState{Index: c.index, RAM: append([]byte{}, c.ram[:]...), Offset: int64(c.offset)}
}

// Load takes a state over.
func (c *CMOS) Load(st CMOSState) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(st.RAM) != len(c.ram):
		return fmt.Errorf("CMOS: %d bytes of memory, want %d", len(st.RAM), len(c.ram))
	case int(st.Index) >= len(c.ram):
		return fmt.Errorf("CMOS: index %#x", st.Index)
	case st.RAM[cmosStatusB]&statusBAlarm != 0 || st.RAM[cmosStatusC] != c.ram[cmosStatusC] || st.RAM[cmosStatusD] != c.ram[cmosStatusD]:
		return errors.New("CMOS: interrupts of the clock, which it doesn't have")
	}
	c.index, c.offset = st.Index, time.Duration(st.Offset)
	copy(c.ram[:], st.RAM)
	return nil
}
