package machine

// The guest-physical memory map. It is part of what a guest sees, and so of what
// a migration must keep.
//
//	0           RAM, up to 3 GiB; the loader's structures and the ACPI tables in the first MiB
//	mmioStart   BARs on bus 0, assigned by ebb (504 MiB)
//	slotStart   BARs behind the hotplug slots' ports, slotSize each (8 MiB)
//	ecamBase    PCI configuration space, 1 MiB a bus
//	0xfec00000  I/O APIC, and from 0xfee00000 the local APICs (in KVM)
//	kvmPages    pages KVM needs for itself on Intel hosts
//	4 GiB       RAM that did not fit below 3 GiB
const (
	mmioStart = 0xc0000000 // memory.HoleStart
	ecamBase  = 0xe0000000
	ecamSize  = (1 + MaxHotplugSlots) << 20
	mmioEnd   = ecamBase
	slotStart = mmioEnd - MaxHotplugSlots*slotSize
	slotSize  = 1 << 20 // the least a bridge's window can be

	ioapicAddr = 0xfec00000
	lapicAddr  = 0xfee00000
	kvmPages   = 0xfffbc000 // identity map (1 page), then task state segment (3 pages)
)

// Devices on bus 0. The root ports of hotplug slots are the functions of the last one
// and lead to buses 1 and up; the window and the bus of every slot there might be are
// reserved.
const (
	portDevice  = 31
	diskDevices = 30 // devices 1 to diskDevices are disks
)

// pciBuses is how many PCI buses a machine has. A Linux guest looks for devices on
// every one that no bridge leads to, 32 configuration reads each, which for all 256
// takes longer than the rest of its boot.
func pciBuses(hotplugSlots int) int { return 1 + hotplugSlots }

// place returns where disk i of those given at start goes: devices 1 and up one
// after another, then again from device 1 as the next function.
func place(i int) (slot, fn int) { return 1 + i%diskDevices, i / diskDevices }

// portPlace returns where the root port of hotplug slot i is.
func portPlace(i int) (slot, fn int) { return portDevice, i }

// slotWindow returns the first address of the memory window of hotplug slot i.
func slotWindow(i int) uint64 { return slotStart + uint64(i)*slotSize }

// Ports.
const (
	portCMOS   = 0x70
	portI8042  = 0x64
	portSerial = 0x3f8
	portPanic  = 0x505 // where QEMU has it
	portPM     = 0x600
	portPCI    = 0xcf8 // configuration address and data
	portReset  = 0xcf9 // within portPCI's dword, but a byte of its own

	resetValue = 0x06 // full reset, as the PIIX and every chipset since take it
)

// Interrupt lines (GSIs). Those up to 23 are pins of the I/O APIC; messages have
// the ones above.
const (
	gsiSerial = 4
	gsiCMOS   = 8
	gsiSCI    = 9
	gsiPins   = 24
)
