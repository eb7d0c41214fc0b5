package main

import (
	"fmt"

	"github.com/ebb-vmm/ebb/kvm"
)

// holdKVM keeps two virtual machines for as long as the lab lives, so that nothing that runs in it creates the first or
// ends the last one. KVM patches its own code at those moments (static keys), also for vCPUs without a local APIC and for
// a local APIC that is switched off, and under the emulator of the outer machine that patching now and then hangs or
// crashes the lab's kernel.
func holdKVM() error {
	// With 0x800 clear in the APIC base the local APIC is off.
	const apicEnabled = 0x800
	s, err := kvm.Open("/dev/kvm")
	if err != nil {
		return err
	}
	withChip, err := s.CreateVM()
	if err != nil {
		return err
	}
	if err := withChip.CreateIRQChip(); err != nil {
		return err
	}
	if _, err := withChip.CreateVCPU(0); err != nil {
		return err
	}
	off, err := withChip.CreateVCPU(1)
	if err != nil {
		return err
	}
	regs, err := off.GetSregs()
	if err != nil {
		return err
	}
	regs.APICBase &^= apicEnabled
	if err := off.SetSregs(regs); err != nil {
		return fmt.Errorf("switching a local APIC off: %w", err)
	}
	without, err := s.CreateVM()
	if err != nil {
		return err
	}
	_, err = without.CreateVCPU(0)
	return err // nothing is closed: the kernel does that when the lab ends
}
