package machine

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ebb-vmm/ebb/virtio/pci"
)

// slot is a hotplug slot: a root port and what is plugged into it. The guest may
// turn the slot on and off at any time, and a device that loses power is not stopped
// but taken apart; power makes a new one on the same disk. So nothing of a device
// can survive, and what the guest does needs no answer in time:
//
//	      insert                     power on                    power off
//	empty ──────▶ in the slot, dark ──────────▶ device answers ───────────┐
//	  ▲            │        ▲                                             ▼
//	  └────────────┘        └──── nothing in flight any more ──── being taken apart
//	    unwanted
//
// Transitions happen where settle finds that they are due, whoever calls it: vCPU
// threads (the guest wrote to the port), and goroutines of the host. None waits; a
// device is taken apart on a goroutine of its own.
type slot struct {
	port *pci.RootPort
	make func(*disk) (*attached, error) // makes the device of a disk; doesn't wait
	gone func(*attached)                // takes a device apart, returns when nothing is in flight

	// mu guards what follows. It is taken after Machine.mu and before all locks of
	// package pci.
	mu       sync.Mutex
	disk     *disk     // in the slot
	device   *attached // what answers behind the port
	leaving  *attached // being taken apart
	unwanted bool      // somebody waits for the guest to let go of the disk
	pressed  bool      // the button, since the guest last showed that it works on the slot
	heard    bool      // the guest listened then
	closed   bool
	changed  chan struct{} // closed and replaced with every transition
}

func newSlot() *slot { return &slot{changed: make(chan struct{})} }

// function is what answers behind the port, nil if nothing does. vCPU threads.
func (s *slot) function() pci.Function {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device == nil {
		return nil
	}
	return s.device.card
}

// preset puts a disk into an empty slot and turns it on, before the guest runs.
func (s *slot) preset(d *disk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	device, err := s.make(d)
	if err != nil {
		return err
	}
	s.disk, s.device = d, device
	s.port.Preset()
	return nil
}

// insert puts a disk into an empty slot and tells the guest.
func (s *slot) insert(d *disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk = d
	s.port.Insert()
	s.settle()
}

// release says whether the disk in the slot is wanted no longer. If so, the guest is
// asked to turn the slot off until it does; then the slot becomes empty.
func (s *slot) release(d *disk, unwanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk != d {
		return
	}
	s.unwanted, s.pressed = unwanted, false
	s.settle()
}

// holds reports whether d is in the slot, and returns a channel that is closed when
// that may have changed.
func (s *slot) holds(d *disk) (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disk == d, s.changed
}

// devices returns those that may have requests in flight.
func (s *slot) devices() (all []*attached) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range []*attached{s.device, s.leaving} {
		if a != nil {
			all = append(all, a)
		}
	}
	return all
}

// resized tells the guest that a disk has another size, if it is in the slot. The lock
// keeps the device from being taken apart meanwhile.
func (s *slot) resized(d *disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk == d && s.device != nil {
		s.device.resized()
	}
}

// why says what a removal waits for.
func (s *slot) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving != nil {
		stats, _ := s.leaving.device.Stats()
		return fmt.Errorf("the guest let go of it, but %d requests are still in flight", stats.InFlight)
	}
	return errors.New("the guest was asked and still holds it; unmount it there and try again")
}

// follow is called when the guest changed the port's power or indicator.
func (s *slot) follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
}

// settle does what is due. mu is held.
func (s *slot) settle() {
	on := s.port.Powered() && !s.closed
	if s.device != nil && !on {
		s.leaving, s.device = s.device, nil
		s.port.SetLink(false)
		go s.takeApart(s.leaving)
		s.tell()
	}
	switch {
	case s.disk == nil || s.leaving != nil || s.closed:
	case s.device == nil && s.unwanted:
		s.disk, s.unwanted = nil, false
		s.port.Eject()
		s.tell()
	case s.device == nil && on:
		if device, err := s.make(s.disk); err == nil { // else the slot stays dark
			s.device = device
			s.port.SetLink(true)
			s.tell()
		}
	case s.device != nil && s.unwanted:
		s.press()
	}
}

// press presses the attention button, unless the guest is at work on the slot: a
// press would then take the request back (PCI Express 6.7.1.5). It presses again
// when the guest is done with that and the device is still on, and when a guest that
// boots begins to listen.
func (s *slot) press() {
	listening := s.port.Listening()
	switch {
	case s.port.PowerIndicator() == pci.IndicatorBlink:
		s.pressed = false
	case !s.pressed, listening && !s.heard:
		s.pressed = true
		s.port.PressButton()
	}
	s.heard = listening
}

func (s *slot) takeApart(a *attached) {
	s.gone(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = nil
	s.tell()
	s.settle()
}

// tell wakes who waits for a transition. mu is held.
func (s *slot) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// close takes the device apart and returns when nothing is in flight. The guest
// doesn't run any more.
func (s *slot) close() error {
	s.mu.Lock()
	s.closed = true
	s.settle()
	for s.leaving != nil {
		changed := s.changed
		s.mu.Unlock()
		<-changed
		s.mu.Lock()
	}
	s.mu.Unlock()
	return s.port.Close()
}
