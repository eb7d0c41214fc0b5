package machine

import "github.com/ebb-vmm/ebb/machine/plain"

// rehearse does with new hardware what is done while the vCPUs stand, but for starting the disks: it saves its
// state, makes bytes of it, and reads and loads these. The first time takes several times as long as the others,
// because code is read from the disk then; now nobody waits for it. A host where it fails can't take the guest.
// Preconditions: the hardware was not started.
func (h *hardware) rehearse() error {
	var s, read machineState
	var err error
	if s.Devices, err = h.saveDevices(); err != nil {
		return err
	}
	if s.KVM, err = h.saveKVM(); err != nil {
		return err
	}
	if err := plain.Unmarshal(plain.Marshal(s), &read); err != nil {
		return err
	}
	_, err = h.loadKVM(read.KVM, func() error { return h.loadDevices(read.Devices, nil) }) // the slots are empty
	return err
}
