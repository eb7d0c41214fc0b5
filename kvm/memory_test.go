package kvm

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// storeBytes is code that stores a byte at each of the offsets from RBX, then halts.
func storeBytes(offsets ...uint32) []byte {
	var code []byte
	for _, o := range offsets {
		code = append(code, 0xc6, 0x83, byte(o), byte(o>>8), byte(o>>16), byte(o>>24), 0x5a) // mov byte [rbx+o], 0x5a
	}
	return append(code, 0xf4) // hlt
}

func pagesOf(bitmap []uint64) (pages []int) {
	for i := range 64 * len(bitmap) {
		if bitmap[i/64]&(1<<(i%64)) != 0 {
			pages = append(pages, i)
		}
	}
	return pages
}

// dirty returns the dirty pages of the data slot.
func (g *guest) dirty() []int {
	g.Helper()
	bitmap := make([]uint64, (dataPages+63)/64)
	check(g, g.vm.GetDirtyLog(dataSlot, bitmap))
	return pagesOf(bitmap)
}

func (g *guest) wantDirty(want ...int) {
	g.Helper()
	if got := g.dirty(); !slices.Equal(got, want) {
		g.Errorf("dirty pages %v, want %v", got, want)
	}
}

func TestMemoryRegions(t *testing.T) {
	vm := newVM(t)
	m := newMemory(t, 16*PageSize)
	r := MemoryRegion{Slot: 3, GuestPhysAddr: 0x10000, Size: 16 * PageSize, Memory: m}
	check(t, vm.SetUserMemoryRegion(r))

	overlap := r
	overlap.Slot = 4
	wantErrno(t, vm.SetUserMemoryRegion(overlap), unix.EEXIST)
	tooLong := r
	tooLong.Size++
	wantErrno(t, vm.SetUserMemoryRegion(tooLong), unix.EINVAL)
	odd := r
	odd.Slot, odd.GuestPhysAddr = 5, 0x800001
	wantErrno(t, vm.SetUserMemoryRegion(odd), unix.EINVAL)

	wantErrno(t, vm.GetDirtyLog(3, make([]uint64, 1)), unix.ENOENT) // not logged
	wantErrno(t, vm.GetDirtyLog(9, make([]uint64, 1)), unix.ENOENT) // no such slot
	r.Flags = MemLogDirtyPages
	check(t, vm.SetUserMemoryRegion(r))
	check(t, vm.GetDirtyLog(3, make([]uint64, 1)))
	wantErrno(t, vm.GetDirtyLog(3, nil), unix.EINVAL)
	wantErrno(t, vm.ClearDirtyLog(3, 0, 16, nil), unix.EINVAL)

	check(t, vm.SetUserMemoryRegion(MemoryRegion{Slot: 3}))
	wantErrno(t, vm.GetDirtyLog(3, make([]uint64, 1)), unix.ENOENT)
	check(t, vm.SetUserMemoryRegion(overlap))
}

func TestDirtyLog(t *testing.T) {
	g := newGuest(t, newVM(t), storeBytes(0, 7*PageSize+123, 64*PageSize, 199*PageSize+4095)...)
	g.setData(MemLogDirtyPages)
	g.wantDirty()
	g.run(ExitHLT)
	wantErrno(t, g.vm.GetDirtyLog(dataSlot, make([]uint64, dataPages/64)), unix.EINVAL) // the last word is missing
	g.wantDirty(0, 7, 64, 199)
	g.wantDirty() // reading cleared it
	if g.data[7*PageSize+123] != 0x5a || g.data[199*PageSize+4095] != 0x5a {
		t.Error("the guest's stores are not in memory")
	}

	// The pages are write-protected again: the same stores are logged anew.
	g.setRegs(func(r *Regs) { r.RIP = codeAddr })
	g.run(ExitHLT)
	g.wantDirty(0, 7, 64, 199)
}

func TestManualDirtyLog(t *testing.T) {
	for _, initiallySet := range []bool{false, true} {
		name, args := "plain", DirtyLogManualProtect
		if initiallySet {
			name, args = "initially set", DirtyLogManualProtect|DirtyLogInitiallySet
		}
		t.Run(name, func(t *testing.T) {
			vm := newVM(t)
			if mask := needCap(t, vm, CapManualDirtyLogProtect2); uint64(mask)&args != args {
				t.Skipf("this KVM has %v only with %#x", CapManualDirtyLogProtect2, mask)
			}
			check(t, vm.EnableCap(CapManualDirtyLogProtect2, args))
			g := newGuest(t, vm, storeBytes(3*PageSize, 70*PageSize, 198*PageSize)...)
			g.setData(MemLogDirtyPages)
			if initiallySet {
				if n := len(g.dirty()); n != dataPages {
					t.Errorf("%d pages dirty at first, want all %d", n, dataPages)
				}
				bitmap := make([]uint64, (dataPages+63)/64)
				check(t, vm.GetDirtyLog(dataSlot, bitmap))
				check(t, vm.ClearDirtyLog(dataSlot, 0, dataPages, bitmap))
			}
			g.wantDirty()
			g.run(ExitHLT)
			g.wantDirty(3, 70, 198)
			g.wantDirty(3, 70, 198) // reading doesn't clear

			check(t, vm.ClearDirtyLog(dataSlot, 64, 64, []uint64{1 << 6})) // page 70
			g.wantDirty(3, 198)
			check(t, vm.ClearDirtyLog(dataSlot, 128, dataPages-128, []uint64{1 << 1, ^uint64(0)})) // 129, and 192 to the end
			g.wantDirty(3)
			wantErrno(t, vm.ClearDirtyLog(dataSlot, 1, 64, []uint64{1}), unix.EINVAL)
			wantErrno(t, vm.ClearDirtyLog(dataSlot, 0, 128, []uint64{1}), unix.EINVAL) // too few bits

			g.setRegs(func(r *Regs) { r.RIP = codeAddr })
			g.run(ExitHLT)
			g.wantDirty(3, 70, 198) // cleared ones were write-protected
		})
	}
}

func TestReadonlySlot(t *testing.T) {
	vm := newVM(t)
	needCap(t, vm, CapReadonlyMem)
	g := newGuest(t, vm,
		0x8a, 0x03, // mov al, [rbx]
		0xc6, 0x03, 0x77, // mov byte [rbx], 0x77
		0xf4) // hlt
	g.data[0] = 0x33
	check(t, vm.SetUserMemoryRegion(MemoryRegion{Slot: dataSlot}))
	g.setData(MemReadonly)
	g.run(ExitMMIO)
	if e := g.cpu.MMIO(); !e.Write || e.Addr != dataAddr || !slices.Equal(e.Data, []byte{0x77}) {
		t.Errorf("store to a read-only slot: %+v", e)
	}
	g.run(ExitHLT)
	if al := byte(must[Regs](t)(g.cpu.GetRegs()).RAX); al != 0x33 || g.data[0] != 0x33 {
		t.Errorf("the guest read %#x, memory is %#x; want 0x33 in both", al, g.data[0])
	}
}

func TestEnableCap(t *testing.T) {
	vm := newVM(t)
	wantErrno(t, vm.EnableCap(0xffff), unix.EINVAL)
	wantErrno(t, vm.EnableCap(CapManualDirtyLogProtect2, 1, 2, 3, 4, 5), unix.EINVAL)
	needCap(t, vm, CapManualDirtyLogProtect2)
	wantErrno(t, vm.EnableCap(CapManualDirtyLogProtect2, 1<<40), unix.EINVAL) // the argument reaches the kernel
	check(t, vm.EnableCap(CapManualDirtyLogProtect2, DirtyLogManualProtect))

	check(t, vm.SetTSSAddr(0xfffbd000))
	check(t, vm.SetIdentityMapAddr(0xfffbc000))
}
