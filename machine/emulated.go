package machine

import "github.com/ebb-vmm/ebb/kvm"

// emulated reports whether this host's processor is QEMU's emulator (TCG), whose SVM has a bug: helper_vmrun
// (target/i386/tcg/sysemu/svm_helper.c) leaves the number of an interrupt that it injects in CPUState.exception_index, until the guest
// exits or has an exception. Should QEMU want its loop's attention meanwhile (exit_request, cpu_handle_interrupt in
// accel/tcg/cpu-exec.c) it delivers that interrupt again, with interrupts off and, after SYSCALL, on the user's stack:
// the guest's kernel dies of a double fault.
func emulated() bool {
	b, c, d := hypervisor()
	return b == 0x54474354 && c == 0x43544743 && d == 0x47435447 // "TCGTCGTCGTCG"
}

// hypervisor is CPUID leaf 0x40000000's EBX, ECX and EDX. On a host that is no guest they mean nothing.
func hypervisor() (b, c, d uint32)

// withoutPVEOI takes the paravirtual end of interrupt (KVM_FEATURE_PV_EOI, kernel Documentation/virt/kvm/x86/cpuid.rst) from what a guest
// is told. Each interrupt's end is an exit then.
func withoutPVEOI(entries []kvm.CPUIDEntry) {
	const features, pvEOI = 0x40000001, 1 << 6
	for i := range entries {
		if entries[i].Function == features {
			entries[i].EAX &^= pvEOI
		}
	}
}
