package machine

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/kvm"
)

// irqState is the state of the interrupt controllers and of the PIT. The levels of the
// input lines are not in it: a device whose line is up raises it again once it is loaded.
type irqState struct {
	Chips [][]byte // 8259A master and slave, I/O APIC: 512 bytes each, as KVM has them
	PIT   kvm.PITState
}

// chips are the controllers in the order of irqState.Chips.
var chips = []uint32{kvm.IRQChipPICMaster, kvm.IRQChipPICSlave, kvm.IRQChipIOAPIC}

// saveInterruptControllers reads them. Any goroutine may call it. Preconditions: every vCPU is at
// the gate, and no device raises an interrupt.
func (h *hardware) saveInterruptControllers() (s irqState, err error) {
	for _, id := range chips {
		chip, err := h.vm.GetIRQChip(id)
		if err != nil {
			return s, fmt.Errorf("saving interrupt controller %d: %w", id, err)
		}
		s.Chips = append(s.Chips, chip.Data[:])
	}
	if s.PIT, err = h.vm.GetPIT2(); err != nil {
		return s, fmt.Errorf("saving the PIT: %w", err)
	}
	bootToReal, err := sinceBootToReal()
	for i := range s.PIT.Channels {
		s.PIT.Channels[i].CountLoadTime += bootToReal
	}
	return s, err
}

// loadInterruptControllers sets them. Preconditions: loadCPUs was called, because the I/O APIC
// hands pending interrupts to the local APICs, which loading them would wipe out.
func (h *hardware) loadInterruptControllers(s irqState) error {
	if len(s.Chips) != len(chips) {
		return fmt.Errorf("the state has %d interrupt controllers, this machine %d", len(s.Chips), len(chips))
	}
	for i, id := range chips {
		chip := kvm.IRQChip{ID: id}
		if n := copy(chip.Data[:], s.Chips[i]); n != len(chip.Data) || n != len(s.Chips[i]) {
			return fmt.Errorf("interrupt controller %d has %d bytes, not %d", id, len(s.Chips[i]), len(chip.Data))
		}
		if err := h.vm.SetIRQChip(chip); err != nil {
			return fmt.Errorf("loading interrupt controller %d: %w", id, err)
		}
	}
	bootToReal, err := sinceBootToReal()
	if err != nil {
		return err
	}
	for i := range s.PIT.Channels { // s is a copy
		s.PIT.Channels[i].CountLoadTime -= bootToReal
	}
	if err := h.vm.SetPIT2(s.PIT); err != nil {
		return fmt.Errorf("loading the PIT: %w", err)
	}
	return nil
}

// sinceBootToReal returns what to add to CLOCK_MONOTONIC to get CLOCK_REALTIME, in ns. KVM has
// the time at which a PIT channel was loaded in the first, which means nothing on another host.
func sinceBootToReal() (int64, error) {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &boot); err != nil {
		return 0, fmt.Errorf("CLOCK_MONOTONIC: %w", err)
	}
	return time.Now().UnixNano() - boot.Nano(), nil
}
