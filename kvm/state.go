package kvm

import "fmt"

// MPState is what a vCPU does when Run enters it (struct kvm_mp_state).
type MPState uint32

// The states of x86. Without CreateIRQChip only MPStateRunnable exists.
const (
	MPStateRunnable      MPState = 0
	MPStateUninitialized MPState = 1 // an application processor before INIT
	MPStateInitReceived  MPState = 2 // after INIT, waiting for SIPI
	MPStateHalted        MPState = 3 // HLT, waiting for an interrupt
	MPStateSIPIReceived  MPState = 4
)

func (s MPState) String() string {
	switch s {
	case MPStateRunnable:
		return "runnable"
	case MPStateUninitialized:
		return "uninitialized"
	case MPStateInitReceived:
		return "init received"
	case MPStateHalted:
		return "halted"
	case MPStateSIPIReceived:
		return "sipi received"
	}
	return fmt.Sprintf("MP state %d", uint32(s))
}

// GetMPState reads the multiprocessing state (api.rst 4.38, needs CapMPState).
// A pending INIT or SIPI is acted on first, so it comes before the other state in a save.
func (c *VCPU) GetMPState() (MPState, error) { return ioctlGet[MPState](c.fd, getMPState) }

// SetMPState writes the multiprocessing state (api.rst 4.39, needs CapMPState).
func (c *VCPU) SetMPState(s MPState) error { return ioctlSet(c.fd, setMPState, s) }

// Flags of Events: which optional fields GetEvents filled, or SetEvents is to
// set; without its flag a field is left alone.
const (
	EventsNMIPending  uint32 = 1 << 0
	EventsSIPIVector  uint32 = 1 << 1
	EventsShadow      uint32 = 1 << 2
	EventsSMM         uint32 = 1 << 3
	EventsPayload     uint32 = 1 << 4 // needs CapExceptionPayload enabled
	EventsTripleFault uint32 = 1 << 5 // needs CapX86TripleFaultEvent enabled
)

// Events are the exceptions, interrupts and NMIs on their way into a vCPU
// (struct kvm_vcpu_events).
type Events struct {
	Exception struct {
		Injected     uint8
		Nr           uint8
		HasErrorCode uint8
		Pending      uint8
		ErrorCode    uint32
	}
	Interrupt struct {
		Injected uint8
		Nr       uint8
		Soft     uint8
		Shadow   uint8 // 1: after MOV SS, 2: after STI
	}
	NMI struct {
		Injected uint8
		Pending  uint8
		Masked   uint8
		_        uint8
	}
	SIPIVector uint32
	Flags      uint32
	SMI        struct {
		SMM          uint8
		Pending      uint8
		SMMInsideNMI uint8
		LatchedInit  uint8
	}
	TripleFault struct {
		Pending uint8
	}
	_                   [26]uint8
	ExceptionHasPayload uint8
	ExceptionPayload    uint64
}

// GetEvents reads the events on their way (api.rst 4.31, needs CapVCPUEvents).
func (c *VCPU) GetEvents() (Events, error) { return ioctlGet[Events](c.fd, getVCPUEvents) }

// SetEvents writes them (api.rst 4.32). After SetRegs, which drops pending exceptions.
func (c *VCPU) SetEvents(e Events) error { return ioctlSet(c.fd, setVCPUEvents, e) }
