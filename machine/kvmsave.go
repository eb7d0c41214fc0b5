package machine

import "time"

// kvmState is all that KVM holds of a VM except memory.
type kvmState struct {
	CPUs        []cpuState
	Controllers irqState
	Clocks      clockState
}

// kvmLoad tells what was not as the state says after loading it.
type kvmLoad struct {
	Elapsed   time.Duration // the guest's clocks were advanced by so much; it is the time since they were saved
	Backwards time.Duration // this host's clock is behind the saved time by so much; the clocks then were advanced from there
	Refused   []string      // one line for each MSR that KVM didn't take
}

// saveKVM reads it. Any goroutine may call it. Preconditions: every vCPU is at the gate, and no device
// raises an interrupt. KVM may still write to guest memory (steal time): the last dirty pass
// comes after.
func (h *hardware) saveKVM() (s kvmState, err error) {
	if s.CPUs, err = h.saveCPUs(); err != nil {
		return s, err
	}
	if s.Controllers, err = h.saveInterruptControllers(); err != nil {
		return s, err
	}
	s.Clocks, err = h.saveClocks()
	return s, err
}

// loadKVM gives new hardware a saved state, which may come from anywhere. After an error
// the hardware can only be closed. Any goroutine may call it.
//
// devices loads those that are not KVM's, in its place among the rest: they raise their lines, and
// send messages that need the local APICs to be loaded, while the controllers' saved state has
// the last word about what the lines have done so far.
//
// Preconditions: the hardware was built with the guest's CPUID and has not been started, and guest
// memory is complete.
func (h *hardware) loadKVM(s kvmState, devices func() error) (kvmLoad, error) {
	refused, err := h.loadCPUs(s.CPUs)
	if err != nil {
		return kvmLoad{}, err
	}
	if err := devices(); err != nil {
		return kvmLoad{}, err
	}
	if err := h.loadInterruptControllers(s.Controllers); err != nil {
		return kvmLoad{}, err
	}
	clocks, err := h.loadClocks(s.Clocks)
	return kvmLoad{clocks.Elapsed, clocks.Backwards, append(refused, clocks.Refused...)}, err
}
