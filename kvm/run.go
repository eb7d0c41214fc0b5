package kvm

import "encoding/binary"

// Offsets in struct kvm_run (api.rst chapter 5). What follows runUnion depends on
// the exit reason.
const (
	runExitReason = 8
	runUnion      = 32

	ioDirection  = runUnion + 0 // u8, 1 = out
	ioSize       = runUnion + 1 // u8
	ioPort       = runUnion + 2 // u16
	ioCount      = runUnion + 4 // u32
	ioDataOffset = runUnion + 8 // u64, from the start of kvm_run

	mmioPhysAddr = runUnion + 0  // u64
	mmioData     = runUnion + 8  // u8[8]
	mmioLen      = runUnion + 16 // u32
	mmioIsWrite  = runUnion + 20 // u8

	// KVM_EXIT_SYSTEM_EVENT and KVM_EXIT_INTERNAL_ERROR begin alike.
	eventKind  = runUnion + 0 // u32
	eventNData = runUnion + 4 // u32, at most 16
	eventData  = runUnion + 8 // u64[16]

	failReason = runUnion + 0 // u64
	failCPU    = runUnion + 8 // u32
)

func (c *VCPU) u32(off int) uint32 { return binary.LittleEndian.Uint32(c.run[off:]) }
func (c *VCPU) u64(off int) uint64 { return binary.LittleEndian.Uint64(c.run[off:]) }

// ExitReason says why the last Run returned nil.
func (c *VCPU) ExitReason() ExitReason { return ExitReason(c.u32(runExitReason)) }

// IOExit is a port access of the guest.
type IOExit struct {
	Port  uint16
	Write bool   // OUT
	Size  int    // bytes per access: 1, 2 or 4
	Count int    // accesses, more than 1 for INS and OUTS
	Data  []byte // Size*Count bytes in kvm_run: what was written, or where to put what is read
}

// IO describes an ExitIO. It allocates nothing. Data is valid until the next
// Run, which hands what a read left in it to the guest.
func (c *VCPU) IO() IOExit {
	e := IOExit{
		Port:  binary.LittleEndian.Uint16(c.run[ioPort:]),
		Write: c.run[ioDirection] == 1,
		Size:  int(c.run[ioSize]),
		Count: int(c.u32(ioCount)),
	}
	off, n := c.u64(ioDataOffset), uint64(e.Size*e.Count)
	e.Data = c.run[off : off+n : off+n]
	return e
}

// MMIOExit is an access of the guest to an address without memory.
type MMIOExit struct {
	Addr  uint64 // guest-physical
	Write bool
	Data  []byte // 1 to 8 bytes in kvm_run: what was written, or where to put what is read
}

// MMIO describes an ExitMMIO. It allocates nothing. Data is valid until the
// next Run, which hands what a read left in it to the guest. A wider access, or one
// across a page, comes as several exits.
func (c *VCPU) MMIO() MMIOExit {
	n := min(c.u32(mmioLen), 8)
	return MMIOExit{
		Addr:  c.u64(mmioPhysAddr),
		Write: c.run[mmioIsWrite] != 0,
		Data:  c.run[mmioData : mmioData+n : mmioData+n],
	}
}

// Types of an ExitSystemEvent.
const (
	SystemEventShutdown uint32 = 1
	SystemEventReset    uint32 = 2
	SystemEventCrash    uint32 = 3
)

// SystemEvent describes an ExitSystemEvent: its type and what goes with it.
func (c *VCPU) SystemEvent() (typ uint32, data []uint64) { return c.u32(eventKind), c.eventWords() }

// Suberrors of an ExitInternalError.
const (
	InternalErrorEmulation      uint32 = 1 // data is flags, then instruction bytes if flags&1
	InternalErrorSimultaneous   uint32 = 2 // an exception while delivering an exception
	InternalErrorDelivery       uint32 = 3 // an exit while delivering an event
	InternalErrorUnexpectedExit uint32 = 4
)

// InternalError describes an ExitInternalError: KVM couldn't go on, and why.
func (c *VCPU) InternalError() (suberror uint32, data []uint64) {
	return c.u32(eventKind), c.eventWords()
}

func (c *VCPU) eventWords() []uint64 {
	data := make([]uint64, min(c.u32(eventNData), 16))
	for i := range data {
		data[i] = c.u64(eventData + 8*i)
	}
	return data
}

// FailEntry describes an ExitFailEntry: the hardware's reason for refusing the
// vCPU's state, and the host CPU it was on.
func (c *VCPU) FailEntry() (reason uint64, cpu uint32) { return c.u64(failReason), c.u32(failCPU) }
