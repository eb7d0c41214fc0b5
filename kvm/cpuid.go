package kvm

import (
	"errors"

	"golang.org/x/sys/unix"
)

// CPUIDSignificantIndex in CPUIDEntry.Flags: the leaf has subleaves, Index tells which.
const CPUIDSignificantIndex uint32 = 1 << 0

// CPUIDEntry is what a CPUID leaf answers (struct kvm_cpuid_entry2).
type CPUIDEntry struct {
	Function           uint32 // EAX on input
	Index              uint32 // ECX on input, with CPUIDSignificantIndex
	Flags              uint32
	EAX, EBX, ECX, EDX uint32
	_                  [3]uint32
}

// SetCPUID decides what CPUID the guest sees (api.rst 4.20). Leaves that aren't there
// answer as on a CPU without them. Before the first Run: later changes are refused.
func (c *VCPU) SetCPUID(entries []CPUIDEntry) error {
	l := newList[listHeader, CPUIDEntry](len(entries))
	l.header.count = uint32(len(entries))
	copy(l.entries, entries)
	if _, err := l.ioctl(c.fd, setCPUID2); err != nil {
		return err
	}
	c.cpuidLen = len(entries)
	return nil
}

// GetCPUID returns what SetCPUID set, with the bits that follow the vCPU's state
// (OSXSAVE, APIC, ...) as they are now.
func (c *VCPU) GetCPUID() ([]CPUIDEntry, error) { return readCPUID(c.fd, getCPUID2, c.cpuidLen) }

func readCPUID(fd int, req request, room int) ([]CPUIDEntry, error) {
	l := newList[listHeader, CPUIDEntry](room)
	l.header.count = uint32(room)
	if _, err := l.ioctl(fd, req); err != nil {
		return nil, err
	}
	return l.entries[:l.header.count], nil
}

// growList calls read with ever more room until the kernel no longer answers
// E2BIG. The lists have 30 to 300 entries.
func growList[E any](read func(room int) ([]E, error)) ([]E, error) {
	for room := 128; ; room *= 2 {
		list, err := read(room)
		if err == nil || !errors.Is(err, unix.E2BIG) || room >= 1<<16 {
			return list, err
		}
	}
}
