package machine

import (
	"fmt"
	"slices"

	"github.com/ebb-vmm/ebb/kvm"
)

// cpuTraits is what must fit before a guest moves: what it was given, or what a host has.
// It comes from another host as JSON.
type cpuTraits struct {
	CPUID      [][]kvm.CPUIDEntry // guest: of each vCPU. Host: one list, what KVM can give
	MSRs       []uint32           // guest: those of its state. Host: those it keeps
	XSAVE      int                // bytes of a vCPU's XSAVE area
	TSCKHz     int                // frequency of the guest's TSC, or of the host's
	TSCScaling bool               // host: a guest's TSC can have another frequency
}

// kvmTraits is what saving and loading need to know of this host's KVM. It is fixed once
// the vCPUs have their CPUID.
type kvmTraits struct {
	msrs       []uint32 // of a vCPU's state, in KVM's order
	khz        int      // of the host's TSC
	tscOffsets bool     // KVM_VCPU_TSC_OFFSET, from Linux 5.16 on
	clockFlags uint32   // of kvm.Clock, likewise
}

// stateMSRs lists the MSRs that KVM may keep for a vCPU: those that it says, and the memory type range registers (SDM volume
// 3A, 12.11.2), which it doesn't say.
func stateMSRs(s *kvm.System) ([]uint32, error) {
	list, err := s.MSRIndexList()
	list = append(list, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f) // of fixed ranges
	for pair := range uint32(8) {
		list = append(list, 0x200+2*pair, 0x201+2*pair) // base and mask
	}
	return append(list, 0x2ff), err // the default
}

// learn finds them out with a new vCPU that has its CPUID.
func (t *kvmTraits) learn(s *kvm.System, vm *kvm.VM, c *kvm.VCPU) error {
	list, err := stateMSRs(s)
	if err != nil {
		return err
	}
	// Hyper-V's are for guests that are given its CPUID, which ebb doesn't do. The host can
	// read them all the same, and some are clocks.
	list = slices.DeleteFunc(list, func(index uint32) bool { return index >= 0x40000000 && index < 0x40000200 })
	readable, err := readMSRs(c, list)
	if err != nil {
		return err
	}
	for _, m := range readable {
		t.msrs = append(t.msrs, m.Index)
	}
	if t.khz, err = c.GetTSCKHz(); err != nil {
		return err
	}
	// What KVM has set itself can be set again. If not, it failed when it made the vCPU, kept that to itself, and takes the
	// guest's TSC for 0 (kvm_set_tsc_khz in arch/x86/kvm/x86.c).
	if err = c.SetTSCKHz(t.khz); err != nil {
		return fmt.Errorf("KVM was loaded when this host's TSC was not calibrated yet, and the guest's timers would fire too late: "+
			"unload kvm_amd or kvm_intel, and kvm, and load them again: %w", err)
	}
	_, err = c.GetTSCOffset()
	t.tscOffsets = err == nil
	flags, err := vm.CheckExtension(kvm.CapAdjustClock)
	t.clockFlags = uint32(flags)
	return err
}

// cpuTraits returns what the guest was given, and asks the vCPUs, which answer only when they don't run. Any goroutine may call it. Preconditions: every vCPU is at the gate.
func (h *hardware) cpuTraits() (t cpuTraits, err error) {
	t = cpuTraits{CPUID: h.cpuids, MSRs: h.traits.msrs}
	if t.XSAVE, err = xsaveSize(h.vm); err != nil {
		return t, err
	}
	t.TSCKHz, err = h.gate.cpus[0].kvm.GetTSCKHz()
	return t, err
}

// hostTraits returns what a guest can be given here. It makes a VM to find out.
func hostTraits(s *kvm.System) (t cpuTraits, err error) {
	supported, err := s.SupportedCPUID()
	if err != nil {
		return t, err
	}
	deadline, err := s.CheckExtension(kvm.CapTSCDeadlineTimer)
	if err != nil {
		return t, err
	}
	t.CPUID = [][]kvm.CPUIDEntry{cpuid(supported, 0, 1, deadline > 0)}
	if t.MSRs, err = stateMSRs(s); err != nil {
		return t, err
	}
	vm, err := s.CreateVM()
	if err != nil {
		return t, err
	}
	defer vm.Close()
	if t.XSAVE, err = xsaveSize(vm); err != nil {
		return t, err
	}
	scaling, err := vm.CheckExtension(kvm.CapTSCControl)
	if err != nil {
		return t, err
	}
	t.TSCScaling = scaling > 0
	c, err := vm.CreateVCPU(0)
	if err != nil {
		return t, err
	}
	defer c.Close()
	t.TSCKHz, err = c.GetTSCKHz()
	return t, err
}

func xsaveSize(vm *kvm.VM) (int, error) {
	n, err := vm.CheckExtension(kvm.CapXSAVE2)
	return max(n, 4096), err // sizeof(struct kvm_xsave)
}

// compatible returns nil if a guest with these traits can go on on this host, else an error that
// says in one sentence what the destination lacks.
func compatible(guest, host cpuTraits) error {
	if len(guest.CPUID) == 0 || len(host.CPUID) != 1 {
		return fmt.Errorf("CPUID of %d vCPUs to compare with that of %d hosts", len(guest.CPUID), len(host.CPUID))
	}
	for _, given := range guest.CPUID {
		if err := compatibleCPUID(given, host.CPUID[0]); err != nil {
			return err
		}
	}
	for _, index := range guest.MSRs {
		if !slices.Contains(host.MSRs, index) {
			return fmt.Errorf("the destination's KVM lacks MSR %#x", index)
		}
	}
	if guest.XSAVE > host.XSAVE {
		return fmt.Errorf("the destination's XSAVE area has %d bytes, the guest's %d", host.XSAVE, guest.XSAVE)
	}
	return sameTSC(guest.TSCKHz, host.TSCKHz, host.TSCScaling)
}

// compatibleCPUID compares what the guest's software acts upon: its vendor, the widths of
// addresses, the places in the XSAVE area, and every feature.
func compatibleCPUID(guest, host []kvm.CPUIDEntry) error {
	if g, h := vendor(guest), vendor(host); g != h {
		return fmt.Errorf("the destination's processor is %q, the guest's %q", h, g)
	}
	g, h := leaf(guest, 0x80000008, 0), leaf(host, 0x80000008, 0)
	for i, kind := range []string{"physical", "linear"} {
		if gw, hw := g.EAX>>(8*i)&0xff, h.EAX>>(8*i)&0xff; gw > hw {
			return fmt.Errorf("the destination's processor has %s addresses of %d bits, the guest's %d", kind, hw, gw)
		}
	}
	for _, e := range guest {
		if e.Function == 0xd && e.Index >= 2 && e.EAX != 0 {
			if h := leaf(host, 0xd, e.Index); h.EAX != e.EAX || h.EBX != e.EBX {
				return fmt.Errorf("the destination's processor has XSAVE component %d (%d bytes) at %d, the guest's (%d) at %d", e.Index, h.EAX, h.EBX, e.EAX, e.EBX)
			}
		}
	}
	for _, f := range featureWords {
		g, h := f.reg(leaf(guest, f.function, f.index)), f.reg(leaf(host, f.function, f.index))
		if lacks := g &^ h &^ f.ignore; lacks != 0 {
			return fmt.Errorf("the destination's processor or its KVM lacks CPUID %s", f.describe(lacks))
		}
	}
	return nil
}

// leaf returns a CPUID leaf, all zero if it isn't there, as the processor answers.
func leaf(entries []kvm.CPUIDEntry, function, index uint32) kvm.CPUIDEntry {
	for _, e := range entries {
		if e.Function == function && (e.Flags&kvm.CPUIDSignificantIndex == 0 || e.Index == index) {
			return e
		}
	}
	return kvm.CPUIDEntry{}
}

func vendor(entries []kvm.CPUIDEntry) string {
	e := leaf(entries, 0, 0)
	var s []byte
	for _, r := range []uint32{e.EBX, e.EDX, e.ECX} {
		s = append(s, byte(r), byte(r>>8), byte(r>>16), byte(r>>24))
	}
	return string(s)
}
