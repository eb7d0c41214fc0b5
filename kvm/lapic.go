package kvm

import "encoding/binary"

// Registers of the local APIC, by offset (Intel SDM vol. 3, "Local APIC Register
// Address Map").
const (
	APICID    = 0x20
	APICSVR   = 0xf0  // spurious vector; bit 8 enables the APIC
	APICISR   = 0x100 // in service, 8 registers 0x10 apart, 32 vectors each
	APICIRR   = 0x200 // requested, likewise
	APICLINT0 = 0x350
	APICLINT1 = 0x360
)

// LAPIC is the local APIC's register page (struct kvm_lapic_state).
type LAPIC [1024]byte

// Reg reads the 32-bit register at an offset below 1024, a multiple of 16.
func (l *LAPIC) Reg(off int) uint32 { return binary.LittleEndian.Uint32(l[off:]) }

// SetReg writes the 32-bit register at off.
func (l *LAPIC) SetReg(off int, v uint32) { binary.LittleEndian.PutUint32(l[off:], v) }

// Requested says whether the vector waits in the IRR.
func (l *LAPIC) Requested(vector uint8) bool {
	return l.Reg(APICIRR+int(vector/32)*0x10)&(1<<(vector%32)) != 0
}

// GetLAPIC reads the local APIC's registers (api.rst 4.57). Only on a VM with
// CreateIRQChip.
func (c *VCPU) GetLAPIC() (LAPIC, error) { return ioctlGet[LAPIC](c.fd, getLAPIC) }

// SetLAPIC writes the local APIC's registers (api.rst 4.58). APICBase (in Sregs)
// comes first: it decides the format of the ID.
func (c *VCPU) SetLAPIC(l LAPIC) error { return ioctlSet(c.fd, setLAPIC, l) }
