package acpi

import "encoding/binary"

// Offsets into the FADT (ACPI 6.5, table 5.9), with its header.
const (
	fadtFACS      = 36
	fadtDSDT      = 40
	fadtSCI       = 46
	fadtPM1aEvent = 56
	fadtPM1aCtl   = 64
	fadtPM1EvtLen = 88
	fadtPM1CtlLen = 89
	fadtC2Latency = 96
	fadtC3Latency = 98
	fadtBootArch  = 109
	fadtFlags     = 112
	fadtResetReg  = 116
	fadtResetVal  = 128
	fadtMinor     = 131
	fadtXDSDT     = 140
	fadtXPM1aEvt  = 148
	fadtXPM1aCtl  = 172
	fadtSize      = 276
)

// Fixed feature flags (table 5.10).
const (
	flagWBINVD     = 1 << 0
	flagC1         = 1 << 2
	flagNoSleepBtn = 1 << 5 // no fixed-feature sleep button; the power button is one (bit 4 clear)
	flagNoRTCWake  = 1 << 6
	flagResetReg   = 1 << 10
)

// IA-PC boot architecture flags (table 5.11). The 8042 bit stays clear: there is
// none but its reset line, and a guest that believes so does not probe for a
// keyboard.
const (
	archLegacyDevices = 1 << 0
	archNoVGA         = 1 << 2
	archNoASPM        = 1 << 4
)

// buildFADT follows 5.2.9. There is no SMI command port, so the machine is in
// ACPI mode from the start, and no PM timer.
func buildFADT(m Machine, facs, dsdt uint32) []byte {
	le := binary.LittleEndian
	f := make([]byte, fadtSize)
	le.PutUint32(f[fadtFACS:], facs)
	le.PutUint32(f[fadtDSDT:], dsdt)
	le.PutUint16(f[fadtSCI:], uint16(m.SCI))
	le.PutUint32(f[fadtPM1aEvent:], uint32(m.PM1Event))
	le.PutUint32(f[fadtPM1aCtl:], uint32(m.PM1Control))
	f[fadtPM1EvtLen] = 4
	f[fadtPM1CtlLen] = 2
	le.PutUint16(f[fadtC2Latency:], 0xffff) // no C2
	le.PutUint16(f[fadtC3Latency:], 0xffff) // no C3
	le.PutUint16(f[fadtBootArch:], archLegacyDevices|archNoVGA|archNoASPM)
	le.PutUint32(f[fadtFlags:], flagWBINVD|flagC1|flagNoSleepBtn|flagNoRTCWake|flagResetReg)
	ioRegister(f[fadtResetReg:], m.ResetPort, 8)
	f[fadtResetVal] = m.ResetValue
	f[fadtMinor] = 5
	// The FACS has either a 32-bit or a 64-bit address; the others may have both.
	le.PutUint64(f[fadtXDSDT:], uint64(dsdt))
	ioRegister(f[fadtXPM1aEvt:], m.PM1Event, 32)
	ioRegister(f[fadtXPM1aCtl:], m.PM1Control, 16)
	return f[headerSize:]
}

// ioRegister writes a generic address structure (5.2.3.2) for an I/O port.
func ioRegister(b []byte, port uint16, bits uint8) {
	b[0] = 1 // system I/O
	b[1] = bits
	b[3] = bits/16 + 1 // access size: 8 → byte, 16 → word, 32 → dword
	binary.LittleEndian.PutUint64(b[4:], uint64(port))
}
