package machine

import (
	"cmp"

	"github.com/ebb-vmm/ebb/aio"
)

// State is what a machine is doing.
type State uint8

// The states of a machine.
const (
	Starting State = iota // its hardware is being made: at first, and after a reset
	Running
	Paused
	Ending // the guest is over; what may remain are disk requests in flight
)

func (s State) String() string {
	return [...]string{"starting", "running", "paused", "ending"}[s]
}

// State returns what the machine is doing, and why if there is a reason that
// its user did not give.
func (m *Machine) State() (s State, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.hw == nil && (m.stopping || m.ending):
		return Ending, ""
	case m.hw == nil:
		return Starting, ""
	}
	select {
	case <-m.hw.over:
		if m.bootsAgain(m.hw.end) {
			return Starting, ""
		}
		return Ending, ""
	default:
	}
	if len(m.held) > 0 { // the vCPUs do, or will in a moment
		return Paused, m.held.first()
	}
	return Running, ""
}

// PausedError says that the guest is paused and so can't do what is asked of it.
type PausedError struct {
	Reason string // empty: its user wants it
}

func (e *PausedError) Error() string {
	if e.Reason == "" {
		return "the guest is paused"
	}
	return "the guest is paused: " + e.Reason
}

// reasons are why a guest stands, other than for a moment: by cause, in words, which are none if its user wants it.
type reasons map[cause]string

func (r reasons) causes() (all cause) {
	for c := range r {
		all |= c
	}
	return all
}

// first is what its user has to know first.
func (r reasons) first() string { return cmp.Or(r[notHere], r[notArrived], r[byFailure]) }

// bootsAgain reports whether a guest that ended so is started again.
func (m *Machine) bootsAgain(e End) bool { return e == Reset && !m.cfg.NoReboot && m.kernel != nil }

// Disks returns the disks, in the order of DiskStats.
func (m *Machine) Disks() []Disk {
	m.mu.Lock()
	defer m.mu.Unlock()
	disks := make([]Disk, len(m.disks))
	for i, d := range m.disks {
		disks[i] = d.cfg
	}
	return disks
}

// EngineStats returns the figures of the engine that all disks share. It may be
// called as long as the machine exists, and doesn't wait.
func (m *Machine) EngineStats() aio.Stats { return m.engine.Stats() }
