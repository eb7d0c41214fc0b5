package kvm

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	msiAddr  = 0xfee00000 // to APIC ID 0
	apicAddr = 0xfee00000 // where vCPUs see their local APIC
	msiGSI   = 24         // the first that no I/O APIC pin has
)

// newIRQVM makes a VM with interrupt controllers.
func newIRQVM(t *testing.T) *VM {
	t.Helper()
	vm := newVM(t)
	needCap(t, vm, CapIRQChip)
	check(t, vm.CreateIRQChip())
	return vm
}

// enableAPIC turns the vCPU's local APIC on by software.
func (g *guest) enableAPIC() {
	g.Helper()
	l := must[LAPIC](g)(g.cpu.GetLAPIC())
	l.SetReg(APICSVR, 0x1ff)
	check(g, g.cpu.SetLAPIC(l))
}

func (g *guest) requested(vector uint8) bool {
	g.Helper()
	l := must[LAPIC](g)(g.cpu.GetLAPIC())
	return l.Requested(vector)
}

// handle puts code that ends an interrupt and reports it to port 0x30 behind vector.
func (g *guest) handle(vector uint8) {
	copy(g.sys[irqAddr:], []byte{
		0xc7, 0x83, 0xb0, 0, 0, 0, 0, 0, 0, 0, // mov dword [rbx+0xb0], 0: end of interrupt
		0xe6, 0x30, // out 0x30, al
		0x48, 0xcf, // iretq
	})
	gate := g.sys[idtAddr+16*int(vector):]
	binary.LittleEndian.PutUint64(gate, irqAddr|8<<16|0x8e00<<32)
	binary.LittleEndian.PutUint64(gate[8:], 0)
	g.setRegs(func(r *Regs) { r.RBX = apicAddr })
}

func TestIRQChipState(t *testing.T) {
	vm := newIRQVM(t)
	wantErrno(t, vm.CreateIRQChip(), unix.EEXIST)
	for _, id := range []uint32{IRQChipPICMaster, IRQChipPICSlave} {
		chip := must[IRQChip](t)(vm.GetIRQChip(id))
		chip.Data[2], chip.Data[5] = 0xa5, 0x20+byte(id)*8 // imr, irq_base
		check(t, vm.SetIRQChip(chip))
	}
	for _, id := range []uint32{IRQChipPICMaster, IRQChipPICSlave} {
		chip := must[IRQChip](t)(vm.GetIRQChip(id))
		if chip.ID != id || chip.Data[2] != 0xa5 || chip.Data[5] != 0x20+byte(id)*8 {
			t.Errorf("PIC %d: id %d, %x", id, chip.ID, chip.Data[:16])
		}
	}
	_, err := vm.GetIRQChip(7)
	wantErrno(t, err, unix.EINVAL)
}

// TestIRQLine looks at an I/O APIC input that is masked, so that the interrupt
// stays in its IRR (offset 16).
func TestIRQLine(t *testing.T) {
	vm := newIRQVM(t)
	irr := func() uint32 {
		chip := must[IRQChip](t)(vm.GetIRQChip(IRQChipIOAPIC))
		return binary.LittleEndian.Uint32(chip.Data[16:])
	}
	chip := must[IRQChip](t)(vm.GetIRQChip(IRQChipIOAPIC))
	binary.LittleEndian.PutUint64(chip.Data[24+8*5:], 0x18051) // pin 5: vector 0x51, level, masked
	check(t, vm.SetIRQChip(chip))
	check(t, vm.IRQLine(5, true))
	if got := irr(); got != 1<<5 {
		t.Errorf("raised: IRR %#x, want %#x", got, 1<<5)
	}
	check(t, vm.IRQLine(5, false))
	if got := irr(); got != 0 {
		t.Errorf("lowered: IRR %#x, want 0", got)
	}
}

func TestIRQFDToMSI(t *testing.T) {
	vm := newIRQVM(t)
	needCap(t, vm, CapIRQFD)
	if n := needCap(t, vm, CapIRQRouting); n <= msiGSI {
		t.Skipf("this KVM routes only %d GSIs", n)
	}
	g := newGuest(t, vm)
	g.enableAPIC()
	first, second := newEventFD(t), newEventFD(t)
	check(t, vm.AssignIRQFD(first, msiGSI))
	check(t, vm.AssignIRQFD(second, msiGSI+1))
	wantErrno(t, vm.AssignIRQFD(first, msiGSI), unix.EBUSY)
	check(t, vm.SetGSIRouting([]Route{
		RouteIRQChip(5, IRQChipIOAPIC, 5),
		RouteMSI(msiGSI, msiAddr, 0x61),
		RouteMSI(msiGSI+1, msiAddr, 0x62),
	}))
	signal(t, second)
	eventually(t, "vector 0x62 requested", func() bool { return g.requested(0x62) })
	if g.requested(0x61) {
		t.Error("vector 0x61 requested without a signal")
	}

	// Another table: the same irqfd leads elsewhere.
	check(t, vm.SetGSIRouting([]Route{RouteMSI(msiGSI, msiAddr, 0x71)}))
	signal(t, first)
	eventually(t, "vector 0x71 requested", func() bool { return g.requested(0x71) })

	check(t, vm.DeassignIRQFD(first, msiGSI))
	signal(t, first)
	if n := signals(t, first); n != 1 {
		t.Errorf("%d signals left in a deassigned irqfd, want 1", n)
	}
	wantErrno(t, vm.SetGSIRouting([]Route{RouteIRQChip(5, 9, 5)}), unix.EINVAL)
}

// TestInterrupt lets a guest take an MSI that an irqfd sends it.
func TestInterrupt(t *testing.T) {
	vm := newIRQVM(t)
	g := newGuest(t, vm,
		0xfb,       // sti
		0xeb, 0xfe) // jmp to itself
	g.enableAPIC()
	g.handle(0x61)
	fd := newEventFD(t)
	check(t, vm.SetGSIRouting([]Route{RouteMSI(msiGSI, msiAddr, 0x61)}))
	check(t, vm.AssignIRQFD(fd, msiGSI))
	for range 3 {
		signal(t, fd)
		g.run(ExitIO)
		if e := g.cpu.IO(); e.Port != 0x30 {
			t.Errorf("exit by %+v, want the handler's", e)
		}
	}
}

func TestPIT(t *testing.T) {
	vm := newIRQVM(t)
	needCap(t, vm, CapPIT2)
	check(t, vm.CreatePIT2(PITSpeakerDummy))
	wantErrno(t, vm.CreatePIT2(0), unix.EEXIST)
	s := must[PITState](t)(vm.GetPIT2())
	s.Channels[2] = PITChannel{Count: 0x1234, Mode: 2, RWMode: 3, Gate: 1}
	check(t, vm.SetPIT2(s))
	got := must[PITState](t)(vm.GetPIT2())
	if c := got.Channels[2]; c.Count != 0x1234 || c.Mode != 2 || c.RWMode != 3 || c.Gate != 1 {
		t.Errorf("channel 2: %+v", c)
	}

	// With the dummy speaker port 0x61 is the kernel's.
	g := newGuest(t, vm, 0xe4, 0x61, 0xe6, 0x30) // in al, 0x61; out 0x30, al
	g.run(ExitIO)
	if e := g.cpu.IO(); e.Port != 0x30 {
		t.Errorf("exit by %+v, want port 0x30", e)
	}
}
