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
