package kvm

import "fmt"

// Cap is a capability, something a KVM may or may not have (api.rst chapters 6 to 8).
// Its values are the kernel's KVM_CAP_ numbers.
type Cap uint32

// The capabilities that ebb asks about.
const (
	CapIRQChip                Cap = 0
	CapUserMemory             Cap = 3
	CapSetTSSAddr             Cap = 4
	CapExtCPUID               Cap = 7
	CapNrMemslots             Cap = 10 // number of slots
	CapMPState                Cap = 14
	CapUserNMI                Cap = 22
	CapIRQRouting             Cap = 25 // number of GSIs
	CapIRQFD                  Cap = 32
	CapPIT2                   Cap = 33
	CapIOEventFD              Cap = 36
	CapSetIdentityMapAddr     Cap = 37
	CapAdjustClock            Cap = 39 // mask of ClockTSCStable, ClockRealtime, ClockHostTSC
	CapVCPUEvents             Cap = 41
	CapDebugRegs              Cap = 50
	CapXSAVE                  Cap = 55
	CapXCRS                   Cap = 56
	CapTSCControl             Cap = 60
	CapGetTSCKHz              Cap = 61
	CapMaxVCPUs               Cap = 66 // hard maximum
	CapTSCDeadlineTimer       Cap = 72
	CapKVMClockCtrl           Cap = 76
	CapReadonlyMem            Cap = 81
	CapCheckExtensionVM       Cap = 105
	CapIOEventFDAnyLength     Cap = 122
	CapVCPUAttributes         Cap = 127
	CapMaxVCPUID              Cap = 128
	CapImmediateExit          Cap = 136
	CapExceptionPayload       Cap = 164
	CapManualDirtyLogProtect2 Cap = 168 // mask of DirtyLogManualProtect, DirtyLogInitiallySet
	CapXSAVE2                 Cap = 208 // bytes of the XSAVE area; ask the VM
	CapX86TripleFaultEvent    Cap = 218
)

var capNames = map[Cap]string{
	CapIRQChip: "IRQCHIP", CapUserMemory: "USER_MEMORY", CapSetTSSAddr: "SET_TSS_ADDR", CapExtCPUID: "EXT_CPUID",
	CapNrMemslots: "NR_MEMSLOTS", CapMPState: "MP_STATE", CapUserNMI: "USER_NMI",
	CapIRQRouting: "IRQ_ROUTING", CapIRQFD: "IRQFD", CapPIT2: "PIT2",
	CapIOEventFD: "IOEVENTFD", CapSetIdentityMapAddr: "SET_IDENTITY_MAP_ADDR", CapAdjustClock: "ADJUST_CLOCK",
	CapVCPUEvents: "VCPU_EVENTS", CapDebugRegs: "DEBUGREGS", CapXSAVE: "XSAVE", CapXCRS: "XCRS",
	CapTSCControl: "TSC_CONTROL", CapGetTSCKHz: "GET_TSC_KHZ", CapMaxVCPUs: "MAX_VCPUS",
	CapTSCDeadlineTimer: "TSC_DEADLINE_TIMER", CapKVMClockCtrl: "KVMCLOCK_CTRL",
	CapReadonlyMem: "READONLY_MEM", CapCheckExtensionVM: "CHECK_EXTENSION_VM",
	CapIOEventFDAnyLength: "IOEVENTFD_ANY_LENGTH", CapVCPUAttributes: "VCPU_ATTRIBUTES", CapMaxVCPUID: "MAX_VCPU_ID",
	CapImmediateExit:          "IMMEDIATE_EXIT",
	CapExceptionPayload:       "EXCEPTION_PAYLOAD",
	CapManualDirtyLogProtect2: "MANUAL_DIRTY_LOG_PROTECT2",
	CapXSAVE2:                 "XSAVE2", CapX86TripleFaultEvent: "X86_TRIPLE_FAULT_EVENT",
}

// String returns the kernel's name, "KVM_CAP_IRQCHIP".
func (c Cap) String() string {
	if s, ok := capNames[c]; ok {
		return "KVM_CAP_" + s
	}
	return fmt.Sprintf("KVM_CAP %d", uint32(c))
}
