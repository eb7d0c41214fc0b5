package machine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ebb-vmm/ebb/kvm"
)

// cpuState is all that KVM holds of a vCPU but its clocks (clockState) and its CPUID,
// which is there before a state is loaded.
type cpuState struct {
	TSCKHz  int // frequency of the guest's TSC
	MPState kvm.MPState
	Regs    kvm.Regs
	Sregs   kvm.Sregs
	XCR0    uint64 // 0: the host's processor has none
	XSAVE   []byte // at the host's offsets; KVM makes one of FXSAVE where the processor has no XSAVE
	Debug   kvm.DebugRegs
	LAPIC   []byte // 1024, the register page
	Events  kvm.Events
	MSRs    []kvm.MSREntry // but for clockMSRs
}

// clockMSRs mean a time, or make KVM compute one. They are part of clockState, and set
// when the clocks are right: a deadline set before would fire early.
var clockMSRs = []uint32{kvm.MSRTSC, kvm.MSRTSCDeadline, kvm.MSRKVMWallClock, kvm.MSRKVMWallClockNew}

// errNested is why a guest that is a KVM host can't be saved: KVM_GET_NESTED_STATE is not part of cpuState.
var errNested = errors.New("the guest runs virtual machines of its own, whose state can't be saved: unload its module kvm_amd or kvm_intel")

// saveCPUs reads the vCPUs. Any goroutine may call it.
//
// Preconditions: every vCPU is at the gate. Its last port or memory access is complete
// then, as api.rst 4.10 asks: a vCPU comes to the gate only when KVM_RUN said EINTR
// or EAGAIN, and KVM finishes a pending access before it looks at immediate_exit or at
// signals. An access of several parts answers with the next part, not with EINTR, until all are done.
func (h *hardware) saveCPUs() ([]cpuState, error) {
	states := make([]cpuState, len(h.gate.cpus))
	for i, c := range h.gate.cpus {
		if err := h.saveCPU(c.kvm, &states[i]); err != nil {
			return nil, fmt.Errorf("saving vCPU %d: %w", c.id, err)
		}
	}
	return states, nil
}

func (h *hardware) saveCPU(c *kvm.VCPU, s *cpuState) (err error) {
	// First: KVM acts on a pending INIT or start-up message here, which changes all the rest.
	if s.MPState, err = c.GetMPState(); err != nil {
		return err
	}
	if s.Regs, err = c.GetRegs(); err != nil {
		return err
	}
	if s.Sregs, err = c.GetSregs(); err != nil {
		return err
	}
	if isHost(s.Sregs) {
		return errNested
	}
	if s.XSAVE, err = c.GetXSAVE(); err != nil {
		return err
	}
	xcrs, err := c.GetXCRS()
	if err != nil {
		return err
	}
	if xcrs.Count > 0 {
		s.XCR0 = xcrs.Regs[0].Value // KVM knows no other
	}
	if s.Debug, err = c.GetDebugRegs(); err != nil {
		return err
	}
	if s.MSRs, err = readMSRs(c, slices.DeleteFunc(slices.Clone(h.traits.msrs), isClockMSR)); err != nil {
		return err
	}
	lapic, err := c.GetLAPIC()
	if err != nil {
		return err
	}
	s.LAPIC = lapic[:]
	if s.Events, err = c.GetEvents(); err != nil {
		return err
	}
	s.TSCKHz, err = c.GetTSCKHz()
	return err
}

// isHost reports whether a guest is ready to run guests of its own.
func isHost(s kvm.Sregs) bool {
	const svme, vmxe = 1 << 12, 1 << 13
	return s.EFER&svme != 0 || s.CR4&vmxe != 0
}

// checkNested is saveCPUs' refusal of such a guest, before a migration begins. As saveCPUs.
func (h *hardware) checkNested() error {
	for _, c := range h.gate.cpus {
		s, err := c.kvm.GetSregs()
		if err != nil {
			return err
		}
		if isHost(s) {
			return errNested
		}
	}
	return nil
}

// loadCPUs gives new vCPUs a saved state. refused has a line for every MSR that KVM did
// not take and that doesn't have that value anyway. The state may come from anywhere:
// KVM checks what it is handed. An error leaves the vCPUs unfit to run.
//
// Preconditions: the vCPUs have the guest's CPUID and have not run yet, and guest memory
// is there, which KVM reads (page-directory pointers) and maps (kvmclock). loadClocks follows.
func (h *hardware) loadCPUs(states []cpuState) (refused []string, err error) {
	if len(states) != len(h.gate.cpus) {
		return nil, fmt.Errorf("the state has %d vCPUs, this machine %d", len(states), len(h.gate.cpus))
	}
	for i, c := range h.gate.cpus {
		msrs, err := h.loadCPU(c.kvm, &states[i])
		if err != nil {
			return refused, fmt.Errorf("loading vCPU %d: %w", c.id, err)
		}
		refused = append(refused, refusals(c.id, msrs)...)
	}
	return refused, nil
}

// refusals describes MSRs that KVM didn't take.
func refusals(id int, msrs []kvm.MSREntry) (lines []string) {
	for _, m := range msrs {
		lines = append(lines, fmt.Sprintf("vCPU %d: KVM refuses MSR %#x = %#x", id, m.Index, m.Data))
	}
	return lines
}

// loadCPU sets the state in an order in which nothing undoes what was set before:
// SetSregs has the APIC base, which decides how SetLAPIC reads the page, CR4.OSXSAVE and
// EFER, on which XCR0 and MSRs depend, and may make the boot processor runnable, so the MP
// state comes later; SetRegs drops pending exceptions, so the events come last.
func (h *hardware) loadCPU(c *kvm.VCPU, s *cpuState) (refused []kvm.MSREntry, err error) {
	if len(s.LAPIC) != len(kvm.LAPIC{}) {
		return nil, fmt.Errorf("a local APIC of %d bytes, not %d", len(s.LAPIC), len(kvm.LAPIC{}))
	}
	if err = h.loadTSCKHz(c, s.TSCKHz); err != nil {
		return nil, err
	}
	if err = c.SetSregs(s.Sregs); err != nil {
		return nil, err
	}
	if s.XCR0 != 0 {
		if err = c.SetXCRS(kvm.XCRS{Count: 1, Regs: [16]kvm.XCR{{Value: s.XCR0}}}); err != nil {
			return nil, err
		}
	}
	if err = c.SetXSAVE(s.XSAVE); err != nil {
		return nil, err
	}
	if refused, err = h.writeMSRs(c, slices.DeleteFunc(slices.Clone(s.MSRs), func(m kvm.MSREntry) bool { return isClockMSR(m.Index) })); err != nil {
		return nil, err
	}
	if err = c.SetLAPIC(kvm.LAPIC(s.LAPIC)); err != nil {
		return nil, err
	}
	if err = c.SetRegs(s.Regs); err != nil {
		return nil, err
	}
	if err = c.SetDebugRegs(s.Debug); err != nil {
		return nil, err
	}
	if err = c.SetMPState(s.MPState); err != nil {
		return nil, err
	}
	return refused, c.SetEvents(s.Events)
}

func isClockMSR(index uint32) bool { return slices.Contains(clockMSRs, index) }

// readMSRs reads those of the registers that the vCPU has.
func readMSRs(c *kvm.VCPU, indices []uint32) ([]kvm.MSREntry, error) {
	rest := make([]kvm.MSREntry, len(indices))
	for i, index := range indices {
		rest[i].Index = index
	}
	read := make([]kvm.MSREntry, 0, len(rest))
	for len(rest) > 0 {
		n, err := c.GetMSRs(rest)
		if err != nil {
			return nil, err
		}
		read = append(read, rest[:n]...)
		rest = rest[min(n+1, len(rest)):] // rest[n] was refused
	}
	return read, nil
}

// writeMSRs sets registers, and returns those that KVM neither took nor has at that value.
// One that this host's KVM doesn't list as state is not even tried: the host sets what a
// guest may not, and only of these is it known what they do.
func (h *hardware) writeMSRs(c *kvm.VCPU, entries []kvm.MSREntry) (refused []kvm.MSREntry, err error) {
	var known []kvm.MSREntry
	for _, m := range entries {
		if slices.Contains(h.traits.msrs, m.Index) {
			known = append(known, m)
		} else {
			refused = append(refused, m)
		}
	}
	for rest := known; len(rest) > 0; {
		n, err := c.SetMSRs(rest)
		if err != nil {
			return nil, err
		}
		if n < len(rest) {
			has := []kvm.MSREntry{{Index: rest[n].Index}}
			if got, err := c.GetMSRs(has); err != nil {
				return nil, err
			} else if got == 0 || has[0].Data != rest[n].Data {
				refused = append(refused, rest[n])
			}
		}
		rest = rest[min(n+1, len(rest)):]
	}
	return refused, nil
}
