package machine

import (
	"fmt"

	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/boot"
)

// prepareCPU gives a vCPU what firmware would: CPUID, memory types, local APIC
// lines. All but the first wait for the first one's start-up message.
func prepareCPU(c *kvm.VCPU, entries []kvm.CPUIDEntry) error {
	if err := c.SetCPUID(entries); err != nil {
		return err
	}
	msrs := []kvm.MSREntry{
		{Index: kvm.MSRMTRRDefType, Data: 0x806}, // MTRRs on, all memory write-back
		{Index: kvm.MSRMiscEnable, Data: kvm.MiscEnableFastString},
	}
	for _, m := range msrs {
		if n, err := c.SetMSRs([]kvm.MSREntry{m}); err != nil {
			return fmt.Errorf("MSR %#x: %w", m.Index, err)
		} else if n == 0 && m.Index == kvm.MSRMTRRDefType {
			return fmt.Errorf("KVM refuses MSR %#x, the default memory type", m.Index)
		}
	}
	lapic, err := c.GetLAPIC()
	if err != nil {
		return err
	}
	const extINT, nmi = 7 << 8, 4 << 8
	lapic.SetReg(kvm.APICLINT0, extINT)
	lapic.SetReg(kvm.APICLINT1, nmi)
	return c.SetLAPIC(lapic)
}

// enterKernel gives the first vCPU the registers the kernel's entry point expects.
func enterKernel(c *kvm.VCPU, e boot.Entry) error {
	s, err := c.GetSregs()
	if err != nil {
		return err
	}
	enter(&s, e)
	if err := c.SetSregs(s); err != nil {
		return err
	}
	return c.SetRegs(kvm.Regs{RIP: e.RIP, RBX: e.RBX, RSI: e.RSI, RFLAGS: 2})
}

// enter sets the mode the kernel starts in.
func enter(s *kvm.Sregs, e boot.Entry) {
	const (
		cr0PE, cr0ET, cr0PG = 1 << 0, 1 << 4, 1 << 31
		cr4PAE              = 1 << 5
		eferLME, eferLMA    = 1 << 8, 1 << 10
		codeType, dataType  = 0xb, 0x3 // accessed
		busyTSS             = 0xb
	)
	flat := kvm.Segment{Limit: 0xffffffff, Present: 1, S: 1, G: 1}
	code, data := flat, flat
	code.Selector, code.Type = boot.CodeSelector, codeType
	data.Selector, data.Type, data.DB = boot.DataSelector, dataType, 1
	s.CR0 = cr0PE | cr0ET
	if e.LongMode {
		code.L = 1
		s.CR0 |= cr0PG
		s.CR3 = e.CR3
		s.CR4 |= cr4PAE
		s.EFER = eferLME | eferLMA
	} else {
		code.DB = 1
	}
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR = kvm.Segment{Selector: boot.TaskSelector, Limit: 0x67, Type: busyTSS, Present: 1}
	s.LDT = kvm.Segment{Unusable: 1}
	s.GDT = kvm.DescriptorTable{Base: e.GDT, Limit: boot.GDTLimit}
	s.IDT = kvm.DescriptorTable{}
}
