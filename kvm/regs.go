package kvm

// Regs are the general-purpose registers (struct kvm_regs).
type Regs struct {
	RAX, RBX, RCX, RDX uint64
	RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11   uint64
	R12, R13, R14, R15 uint64
	RIP, RFLAGS        uint64 // bit 1 of RFLAGS is always set
}

// Segment is a segment register with its hidden part (struct kvm_segment).
type Segment struct {
	Base     uint64
	Limit    uint32 // in bytes, whatever G says
	Selector uint16
	Type     uint8 // 4 bits, as in a descriptor
	Present  uint8
	DPL      uint8
	DB       uint8 // 32-bit
	S        uint8 // code or data, not system
	L        uint8 // 64-bit code
	G        uint8
	AVL      uint8
	Unusable uint8
	_        uint8
}

// DescriptorTable is GDTR or IDTR (struct kvm_dtable).
type DescriptorTable struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// Sregs are the special registers (struct kvm_sregs).
type Sregs struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                DescriptorTable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	InterruptBitmap         [4]uint64 // external interrupt being injected, at most one bit
}

// GetRegs reads the general-purpose registers (api.rst 4.11).
func (c *VCPU) GetRegs() (Regs, error) { return ioctlGet[Regs](c.fd, getRegs) }

// SetRegs writes the general-purpose registers (api.rst 4.12) and drops a pending exception.
func (c *VCPU) SetRegs(r Regs) error { return ioctlSet(c.fd, setRegs, r) }

// GetSregs reads the special registers (api.rst 4.13).
func (c *VCPU) GetSregs() (Sregs, error) { return ioctlGet[Sregs](c.fd, getSregs) }

// SetSregs writes the special registers (api.rst 4.14). EINVAL: they contradict
// each other or the vCPU's CPUID.
func (c *VCPU) SetSregs(s Sregs) error { return ioctlSet(c.fd, setSregs, s) }

// DebugRegs are the debug registers (struct kvm_debugregs).
type DebugRegs struct {
	DB       [4]uint64
	DR6, DR7 uint64
	Flags    uint64 // 0
	_        [9]uint64
}

// GetDebugRegs reads the debug registers (api.rst 4.33, needs CapDebugRegs).
func (c *VCPU) GetDebugRegs() (DebugRegs, error) { return ioctlGet[DebugRegs](c.fd, getDebugRegs) }

// SetDebugRegs writes the debug registers (api.rst 4.34, needs CapDebugRegs).
func (c *VCPU) SetDebugRegs(d DebugRegs) error { return ioctlSet(c.fd, setDebugRegs, d) }
