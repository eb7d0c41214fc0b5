// Package chipset is the few devices at fixed ports that a Linux guest expects of
// a PC: a 16550 serial port, the CMOS clock, power management, the 8042's reset
// line and pvpanic. Each is a bus.Handler (package machine/bus) and locks for
// itself, since every vCPU may reach it.
package chipset

// A Line is a device's interrupt line into the machine's interrupt controllers.
// It is called with the device's lock held, so it must not call back.
type Line func(high bool)
