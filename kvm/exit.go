package kvm

import "fmt"

// ExitReason says why Run returned (api.rst chapter 5).
type ExitReason uint32

// The reasons x86 hosts give for what ebb enables.
const (
	ExitUnknown       ExitReason = 0
	ExitException     ExitReason = 1  //
	ExitIO            ExitReason = 2  // VCPU.IO
	ExitHypercall     ExitReason = 3  //
	ExitDebug         ExitReason = 4  //
	ExitHLT           ExitReason = 5  // only without CreateIRQChip
	ExitMMIO          ExitReason = 6  // VCPU.MMIO
	ExitIRQWindowOpen ExitReason = 7  //
	ExitShutdown      ExitReason = 8  // triple fault
	ExitFailEntry     ExitReason = 9  // VCPU.FailEntry
	ExitIntr          ExitReason = 10 // a signal; Run returned EINTR
	ExitSetTPR        ExitReason = 11 //
	ExitTPRAccess     ExitReason = 12 //
	ExitNMI           ExitReason = 16 //
	ExitInternalError ExitReason = 17 // VCPU.InternalError
	ExitSystemEvent   ExitReason = 24 // VCPU.SystemEvent
	ExitIOAPICEOI     ExitReason = 26 //
	ExitX86RDMSR      ExitReason = 29 //
	ExitX86WRMSR      ExitReason = 30 //
	ExitX86BusLock    ExitReason = 33 //
	ExitNotify        ExitReason = 37 //
)

var exitNames = map[ExitReason]string{
	ExitUnknown: "unknown", ExitException: "exception", ExitIO: "io", ExitHypercall: "hypercall", ExitDebug: "debug",
	ExitHLT: "hlt", ExitMMIO: "mmio", ExitIRQWindowOpen: "irq window open", ExitShutdown: "shutdown (triple fault)",
	ExitFailEntry: "fail entry", ExitIntr: "intr", ExitSetTPR: "set tpr", ExitTPRAccess: "tpr access", ExitNMI: "nmi",
	ExitInternalError: "internal error", ExitSystemEvent: "system event", ExitIOAPICEOI: "ioapic eoi",
	ExitX86RDMSR: "rdmsr", ExitX86WRMSR: "wrmsr", ExitX86BusLock: "bus lock", ExitNotify: "notify",
}

func (r ExitReason) String() string {
	if s, ok := exitNames[r]; ok {
		return s
	}
	return fmt.Sprintf("exit reason %d", uint32(r))
}
