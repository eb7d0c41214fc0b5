package kvm

import "unsafe"

// The structs below carry a user-space address. It is an unsafe.Pointer rather
// than the kernel's __u64, so that the memory stays alive during the call and the
// address follows it should it be on a stack.

// userspaceMemoryRegion is struct kvm_userspace_memory_region.
type userspaceMemoryRegion struct {
	slot          uint32
	flags         uint32
	guestPhysAddr uint64
	memorySize    uint64
	userspaceAddr unsafe.Pointer
}

// dirtyLog is struct kvm_dirty_log.
type dirtyLog struct {
	slot   uint32
	_      uint32
	bitmap unsafe.Pointer
}

// dirtyLogRange is struct kvm_clear_dirty_log.
type dirtyLogRange struct {
	slot      uint32
	numPages  uint32
	firstPage uint64
	bitmap    unsafe.Pointer
}

// Preconditions: r.Size <= len(r.Memory).
func ioctlMemoryRegion(fd int, r MemoryRegion) error {
	u := userspaceMemoryRegion{slot: r.Slot, flags: r.Flags, guestPhysAddr: r.GuestPhysAddr, memorySize: r.Size}
	if r.Size > 0 {
		u.userspaceAddr = unsafe.Pointer(unsafe.SliceData(r.Memory))
	}
	_, err := ioctlPtr(fd, setUserMemoryRegion, &u)
	return err
}

// Preconditions: bitmap has a bit for every page of the slot, rounded up to 64.
func ioctlGetDirtyLog(fd int, slot uint32, bitmap []uint64) error {
	d := dirtyLog{slot: slot, bitmap: unsafe.Pointer(unsafe.SliceData(bitmap))}
	_, err := ioctlPtr(fd, getDirtyLog, &d)
	return err
}

// Preconditions: bitmap has numPages bits, rounded up to 64.
func ioctlClearDirtyLog(fd int, slot uint32, firstPage uint64, numPages uint32, bitmap []uint64) error {
	d := dirtyLogRange{slot: slot, numPages: numPages, firstPage: firstPage, bitmap: unsafe.Pointer(unsafe.SliceData(bitmap))}
	_, err := ioctlPtr(fd, clearDirtyLog, &d)
	return err
}
