package kvm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// PageSize is the unit of memory slots and dirty logs.
const PageSize = 4096

// Flags of a MemoryRegion.
const (
	MemLogDirtyPages uint32 = 1 << 0 // keep a dirty log for this slot
	MemReadonly      uint32 = 1 << 1 // guest stores leave as MMIO exits (needs CapReadonlyMem)
)

// Arguments of EnableCap(CapManualDirtyLogProtect2, ...). CheckExtension returns
// the mask of those the kernel knows.
const (
	// DirtyLogManualProtect makes GetDirtyLog only read: pages are write-protected
	// again by ClearDirtyLog, a piece at a time.
	DirtyLogManualProtect uint64 = 1 << 0
	// DirtyLogInitiallySet reports all pages dirty when logging starts, and write-
	// protects none until they are first cleared. Only with DirtyLogManualProtect.
	DirtyLogInitiallySet uint64 = 1 << 1
)

// MemoryRegion is one memory slot: a piece of guest-physical space backed by host memory.
type MemoryRegion struct {
	Slot          uint32 // 0 <= Slot < CheckExtension(CapNrMemslots)
	Flags         uint32 // MemLogDirtyPages | MemReadonly
	GuestPhysAddr uint64 // page-aligned
	Size          uint64 // bytes, a multiple of PageSize, at most len(Memory); 0 deletes the slot
	Memory        []byte // page-aligned and mmap'd, never Go heap: the kernel keeps the address
}

// SetUserMemoryRegion creates, changes or deletes a memory slot (api.rst 4.35).
// An existing slot may be moved or given other flags, not another size. Slots don't overlap (EEXIST).
// Memory must stay mapped until the slot is deleted or the VM gone.
func (vm *VM) SetUserMemoryRegion(r MemoryRegion) error {
	if r.Size > uint64(len(r.Memory)) {
		return fmt.Errorf("slot %d: %d bytes of guest memory backed by %d: %w", r.Slot, r.Size, len(r.Memory),
			setUserMemoryRegion.fail(unix.EINVAL))
	}
	vm.slotMu.Lock()
	defer vm.slotMu.Unlock()
	if err := ioctlMemoryRegion(vm.fd, r); err != nil {
		return err
	}
	if r.Size == 0 {
		delete(vm.slotPages, r.Slot)
	} else {
		vm.slotPages[r.Slot] = r.Size / PageSize
	}
	return nil
}

// GetDirtyLog stores the slot's dirty bitmap: bit p%64 of bitmap[p/64] is page p
// of the slot (api.rst 4.8). The bitmap needs a word per 64 pages of the slot, the last
// one counted whole. Pages written through KVM are in it, those that the VMM itself wrote to are not.
//
// Without DirtyLogManualProtect the log starts anew with the call; with it the
// log is left alone, and a page stays dirty until ClearDirtyLog.
func (vm *VM) GetDirtyLog(slot uint32, bitmap []uint64) error {
	vm.slotMu.RLock() // the slot must not grow under the bitmap
	defer vm.slotMu.RUnlock()
	pages, ok := vm.slotPages[slot]
	if !ok {
		return getDirtyLog.fail(unix.ENOENT)
	}
	if err := checkBitmap(getDirtyLog, bitmap, pages); err != nil {
		return err
	}
	return ioctlGetDirtyLog(vm.fd, slot, bitmap)
}

// ClearDirtyLog clears in the log the pages whose bit is set in bitmap, where
// bit 0 is firstPage, and write-protects them (api.rst 4.117). Only with
// DirtyLogManualProtect.
//
// firstPage is a multiple of 64; so is numPages, unless the range ends with the
// slot. The bitmap is one that GetDirtyLog gave, from bitmap[firstPage/64] on: whoever
// clears without having read loses pages.
func (vm *VM) ClearDirtyLog(slot uint32, firstPage uint64, numPages uint32, bitmap []uint64) error {
	if err := checkBitmap(clearDirtyLog, bitmap, uint64(numPages)); err != nil {
		return err
	}
	return ioctlClearDirtyLog(vm.fd, slot, firstPage, numPages, bitmap)
}

// checkBitmap makes sure that the kernel stays inside the bitmap.
func checkBitmap(req request, bitmap []uint64, pages uint64) error {
	if uint64(len(bitmap)) < (pages+63)/64 {
		return fmt.Errorf("bitmap of %d words for %d pages: %w", len(bitmap), pages, req.fail(unix.EINVAL))
	}
	return nil
}
