package acpi

// buildDSDT describes what can't be discovered: the PCI root and the devices at
// fixed ports, and how to power off.
func buildDSDT(m Machine) []byte {
	return join(
		scope("_SB_",
			device("PCI0",
				name("_HID", eisaID("PNP0A08")), // PCI Express
				name("_CID", eisaID("PNP0A03")),
				name("_SEG", integer(0)),
				name("_BBN", integer(0)),
				name("_UID", integer(0)),
				name("_CRS", resources(
					wordRange(rangeBus, 0, uint16(m.Buses-1)),
					ports(0xcf8, 8),
					wordRange(rangeIO, 0x0000, 0x0cf7),
					wordRange(rangeIO, 0x0d00, 0xffff),
					dwordMemory(m.MMIOFirst, m.MMIOEnd-1),
				)),
				operatingSystemCapabilities(),
			),
			// Linux uses the configuration window only if a motherboard resource claims it.
			device("MBRD",
				name("_HID", eisaID("PNP0C02")),
				name("_UID", integer(0)),
				name("_CRS", resources(memory32(m.ECAM, uint32(m.Buses)<<20))),
			),
			device("COM1",
				name("_HID", eisaID("PNP0501")),
				name("_UID", integer(0)),
				name("_CRS", resources(ports(m.Serial, 8), irq(m.SerialIRQ))),
			),
			device("RTC0",
				name("_HID", eisaID("PNP0B00")),
				name("_CRS", resources(ports(m.CMOS, 2), irq(m.CMOSIRQ))),
			),
			device("PEVT",
				name("_HID", text("QEMU0001")), // the id the pvpanic driver knows
				name("_STA", integer(0xf)),
				name("_CRS", resources(ports(m.PanicPort, 1))),
			),
		),
		name("_S5_", packageOf(integer(uint32(m.SleepTypeS5)), integer(0), integer(0), integer(0))),
	)
}

// Bits of the control field of _OSC: what the operating system asks to control by
// itself (PCI Firmware Specification 3.3, table 4-5).
const (
	controlHotplug    = 1 << 0 // native PCI Express hotplug
	controlCapability = 1 << 4 // the PCI Express capability, on which the others depend
)

// Bits of the status that _OSC returns (ACPI 6.5, 6.2.11).
const (
	statusUnknownUUID     = 1 << 2
	statusUnknownRevision = 1 << 3
	statusMasked          = 1 << 4 // not everything was granted
)

// operatingSystemCapabilities is the root's _OSC method: without it Linux leaves the
// slots of root ports alone. It grants hotplug and no more; there is nothing else a
// guest could control.
func operatingSystemCapabilities() []byte {
	status, control := []byte("STAT"), []byte("CTRL")
	return method("_OSC", 4, // UUID, revision, count of DWORDs, the DWORDs: status, support, control
		dwordField(arg(3), 0, "STAT"),
		when(equal(arg(0), uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
			dwordField(arg(3), 8, "CTRL"),
			when(not(equal(arg(1), integer(1))), or(status, integer(statusUnknownRevision), status)),
			and(control, integer(controlHotplug|controlCapability), local(0)),
			when(not(equal(control, local(0))), or(status, integer(statusMasked), status)),
			store(local(0), control),
		),
		otherwise(or(status, integer(statusUnknownUUID), status)),
		returns(arg(3)),
	)
}
