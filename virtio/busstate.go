package virtio

import (
	"bytes"
	"slices"

	"github.com/ebb-vmm/ebb/virtio/pci"
)

// BusState is what the machine around a device has to know: where its BAR is, which messages
// its interrupts are, and whether its queues have been running. It seldom changes after a guest's
// boot, and each piece costs a grace period of KVM's to set up. So a migration sends it ahead.
type BusState struct {
	Config pci.ConfigState
	MSIX   pci.MSIXState
	Live   bool // DRIVER_OK
}

// SaveBus returns it. The guest may run, and then change it.
func (t *PCI) SaveBus() BusState {
	return BusState{t.config.Save(), t.msix.Save(), t.live.Load()}
}

// LoadBus prepares a new device for a Load, which then has to set up only what has changed since
// s was saved. Errors, and who may call it, as of Load. It may be called more than once.
func (t *PCI) LoadBus(s BusState) error {
	s.MSIX.Entries = slices.Clone(s.MSIX.Entries)
	for i := range s.MSIX.Entries {
		s.MSIX.Entries[i].Pending = false // by then it may have been delivered
	}
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	if err := t.loadBus(s.Config, s.MSIX); err != nil {
		return err
	}
	if s.Live {
		t.kicks.want()
	}
	return nil
}

func (t *PCI) loadBus(config pci.ConfigState, msix pci.MSIXState) error {
	if err := t.config.Load(config); err != nil {
		return err
	}
	return t.msix.Load(msix)
}

// IsAt reports whether the BAR is where a state has it.
func (t *PCI) IsAt(s pci.ConfigState) bool {
	const command, bar0, end = 0x04, 0x10, 0x28
	var now [pci.ConfigSize]byte
	t.config.Bytes(0, now[:])
	return len(s.Data) == len(now) && bytes.Equal(s.Data[command:command+2], now[command:command+2]) && bytes.Equal(s.Data[bar0:end], now[bar0:end])
}
