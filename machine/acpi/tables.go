// Package acpi builds the tables that tell a guest what its machine is made of:
// RSDP, XSDT, FADT, FACS, MADT, MCFG and a DSDT with the PCI root (ACPI 6.5,
// chapter 5). It describes; the devices themselves are in package chipset.
package acpi

import (
	"encoding/binary"
	"fmt"
)

// Machine is what the tables describe. Addresses are guest-physical.
type Machine struct {
	CPUs int // local APIC ids 0 to CPUs-1; at most 255

	LocalAPIC, IOAPIC uint32

	ECAM               uint32 // base of the PCI configuration window, 1 MiB a bus
	Buses              int    // PCI buses, 1 to 256
	MMIOFirst, MMIOEnd uint32 // where BARs may be, end exclusive

	SCI         uint8  // interrupt of power management events
	PM1Event    uint16 // ports: 4 bytes, status and enable
	PM1Control  uint16 // ports: 2 bytes
	ResetPort   uint16
	ResetValue  uint8
	SleepTypeS5 uint8 // SLP_TYP that powers off

	Serial     uint16 // first of 8 ports
	SerialIRQ  uint
	CMOS       uint16 // first of 2 ports
	CMOSIRQ    uint
	PanicPort  uint16
	IRQ0ToPin2 bool // the timer's ISA interrupt 0 arrives at I/O APIC pin 2
}

const headerSize = 36

// Build returns the tables as they are to be loaded at base, and the address of
// the RSDP in them. It fails if they need more than limit bytes.
func Build(m Machine, base uint32, limit int) (image []byte, rsdp uint64, err error) {
	const rsdpSize, facsSize, align = 36, 64, 64

	place := func(t []byte) uint32 {
		for len(image)%align != 0 {
			image = append(image, 0)
		}
		at := base + uint32(len(image))
		image = append(image, t...)
		return at
	}
	place(make([]byte, rsdpSize))
	facs := place(buildFACS(facsSize))
	dsdt := place(table("DSDT", 2, buildDSDT(m)))
	tables := []uint32{
		place(table("FACP", 6, buildFADT(m, facs, dsdt))),
		place(table("APIC", 4, buildMADT(m))),
		place(table("MCFG", 1, buildMCFG(m))),
	}
	var pointers []byte
	for _, t := range tables {
		pointers = binary.LittleEndian.AppendUint64(pointers, uint64(t))
	}
	xsdt := place(table("XSDT", 1, pointers))
	copy(image, buildRSDP(xsdt))

	if len(image) > limit {
		return nil, 0, fmt.Errorf("the ACPI tables take %d bytes, and there is room for %d", len(image), limit)
	}
	return image, uint64(base), nil
}

// table puts the common header (5.2.6) before body.
func table(signature string, revision uint8, body []byte) []byte {
	t := make([]byte, headerSize, headerSize+len(body))
	copy(t, signature)
	binary.LittleEndian.PutUint32(t[4:], uint32(headerSize+len(body)))
	t[8] = revision
	copy(t[10:], "EBB   ")
	copy(t[16:], "EBBVM   ")
	binary.LittleEndian.PutUint32(t[24:], 1)
	copy(t[28:], "EBB ")
	binary.LittleEndian.PutUint32(t[32:], 1)
	t = append(t, body...)
	t[9] = checksum(t)
	return t
}

// checksum is what makes the bytes, with 0 in its place, add up to zero.
func checksum(b []byte) (sum uint8) {
	for _, v := range b {
		sum -= v
	}
	return sum
}

// buildRSDP follows 5.2.5.3, revision 2: there is no RSDT.
func buildRSDP(xsdt uint32) []byte {
	r := make([]byte, 36)
	copy(r, "RSD PTR ")
	copy(r[9:], "EBB   ")
	r[15] = 2
	binary.LittleEndian.PutUint32(r[20:], uint32(len(r)))
	binary.LittleEndian.PutUint64(r[24:], uint64(xsdt))
	r[8] = checksum(r[:20])
	r[32] = checksum(r)
	return r
}

// buildFACS follows 5.2.10. There is no firmware to wake up, so it is empty.
func buildFACS(size int) []byte {
	f := make([]byte, size)
	copy(f, "FACS")
	binary.LittleEndian.PutUint32(f[4:], uint32(size))
	f[32] = 2 // version
	return f
}

// buildMCFG follows the PCI Firmware Specification 3.3, 4.1.2.
func buildMCFG(m Machine) []byte {
	b := make([]byte, 8+16)
	binary.LittleEndian.PutUint64(b[8:], uint64(m.ECAM))
	b[8+11] = byte(m.Buses - 1) // last bus; segment 0, first bus 0
	return b
}

// buildMADT follows 5.2.12.
func buildMADT(m Machine) []byte {
	b := binary.LittleEndian.AppendUint32(nil, m.LocalAPIC)
	b = binary.LittleEndian.AppendUint32(b, 1) // there are 8259s as well
	for id := range m.CPUs {
		b = append(b, 0, 8, byte(id), byte(id))    // processor local APIC
		b = binary.LittleEndian.AppendUint32(b, 1) // enabled
	}
	b = append(b, 1, 12, 0 /* id */, 0)
	b = binary.LittleEndian.AppendUint32(b, m.IOAPIC)
	b = binary.LittleEndian.AppendUint32(b, 0) // first GSI

	override := func(irq uint8, gsi uint32, flags uint16) {
		b = append(b, 2, 10, 0 /* ISA */, irq)
		b = binary.LittleEndian.AppendUint32(b, gsi)
		b = binary.LittleEndian.AppendUint16(b, flags)
	}
	if m.IRQ0ToPin2 {
		override(0, 2, 0)
	}
	const levelHigh = 3<<2 | 1
	override(m.SCI, uint32(m.SCI), levelHigh)

	b = append(b, 4, 6, 0xff, 0, 0, 1) // LINT1 of every processor is NMI
	return b
}
