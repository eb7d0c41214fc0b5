package kvm

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRegs(t *testing.T) {
	g := newGuest(t, newVM(t))
	want := Regs{
		RAX: 1, RBX: 2, RCX: 3, RDX: 4, RSI: 5, RDI: 6, RSP: 7, RBP: 8, R8: 9, R9: 10, R10: 11, R11: 12, R12: 13,
		R13: 14, R14: 15, R15: 1<<63 | 16, RIP: 0x123456, RFLAGS: 0x246,
	}
	check(t, g.cpu.SetRegs(want))
	if got := must[Regs](t)(g.cpu.GetRegs()); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestSregs(t *testing.T) {
	g := newGuest(t, newVM(t))
	s := must[Sregs](t)(g.cpu.GetSregs())
	s.CR2, s.CR8, s.FS.Base, s.GDT.Limit = 0x5000, 3, 0x7777000, 0x77
	check(t, g.cpu.SetSregs(s))
	got := must[Sregs](t)(g.cpu.GetSregs())
	if got != s {
		t.Errorf("got %+v\nwant %+v", got, s)
	}
	if got.CS.L != 1 || got.EFER != 0x500 || got.CR3 != pml4Addr {
		t.Errorf("not in 64-bit mode: %+v", got)
	}
	s.CR4 = 0 // no PAE in long mode
	wantErrno(t, g.cpu.SetSregs(s), unix.EINVAL)
}

func TestDebugRegs(t *testing.T) {
	g := newGuest(t, newVM(t))
	needCap(t, g.vm, CapDebugRegs)
	d := must[DebugRegs](t)(g.cpu.GetDebugRegs())
	d.DB = [4]uint64{0x1000, 0x2000, 0x3000, 0x4000}
	d.DR7 = 0x400
	check(t, g.cpu.SetDebugRegs(d))
	if got := must[DebugRegs](t)(g.cpu.GetDebugRegs()); got != d {
		t.Errorf("got %+v\nwant %+v", got, d)
	}
}

func TestFPU(t *testing.T) {
	g := newGuest(t, newVM(t))
	f := must[FPU](t)(g.cpu.GetFPU())
	f.FCW, f.LastOpcode = 0x37e, 0x123
	f.FPR[2][0], f.XMM[15][15] = 0x11, 0x22
	check(t, g.cpu.SetFPU(f))
	if got := must[FPU](t)(g.cpu.GetFPU()); got != f {
		t.Errorf("got %+v\nwant %+v", got, f)
	}
}

// TestXSAVE moves XMM0 by way of the XSAVE area: legacy region at 160, its
// presence in XSTATE_BV at 512.
func TestXSAVE(t *testing.T) {
	g := newGuest(t, newVM(t))
	needCap(t, g.vm, CapXSAVE)
	size := max(must[int](t)(g.vm.CheckExtension(CapXSAVE2)), 4096)
	area := must[[]byte](t)(g.cpu.GetXSAVE())
	if len(area) != size {
		t.Fatalf("%d bytes, want %d", len(area), size)
	}
	const sse = 1 << 1
	xmm0 := []byte("sixteen bytes ..")
	put := func(area []byte) {
		copy(area[160:], xmm0)
		area[512] |= sse
		binary.LittleEndian.PutUint32(area[24:], 0x1f80) // MXCSR
	}
	put(area)
	check(t, g.cpu.SetXSAVE(area))
	if got := must[[]byte](t)(g.cpu.GetXSAVE()); !bytes.Equal(got, area) {
		t.Error("the area changed on its way")
	}
	if f := must[FPU](t)(g.cpu.GetFPU()); !bytes.Equal(f.XMM[0][:], xmm0) {
		t.Errorf("XMM0 %q, want %q", f.XMM[0], xmm0)
	}

	xmm0 = []byte("from a short one")
	edge := newMemory(t, 2*PageSize) // whoever reads behind the short one faults
	check(t, unix.Mprotect(edge[PageSize:], unix.PROT_NONE))
	short := edge[PageSize-576 : PageSize]
	copy(short, area)
	put(short)
	check(t, g.cpu.SetXSAVE(short))
	if f := must[FPU](t)(g.cpu.GetFPU()); !bytes.Equal(f.XMM[0][:], xmm0) {
		t.Errorf("XMM0 %q, want %q", f.XMM[0], xmm0)
	}
	wantErrno(t, g.cpu.SetXSAVE(area[:575]), unix.EINVAL)
	wantErrno(t, g.cpu.SetXSAVE(make([]byte, size+1)), unix.EINVAL)
}

func TestXCRS(t *testing.T) {
	g := newGuest(t, newVM(t))
	needCap(t, g.vm, CapXCRS)
	for _, want := range []uint64{3, 1} { // x87 and SSE, x87 alone
		check(t, g.cpu.SetXCRS(XCRS{Count: 1, Regs: [16]XCR{{Value: want}}}))
		x := must[XCRS](t)(g.cpu.GetXCRS())
		if x.Count != 1 || x.Regs[0].Index != 0 || x.Regs[0].Value != want {
			t.Errorf("got %+v, want XCR0 = %d", x, want)
		}
	}
	wantErrno(t, g.cpu.SetXCRS(XCRS{Count: 1, Regs: [16]XCR{{Value: 0}}}), unix.EINVAL) // x87 is always on
}

func TestMSRs(t *testing.T) {
	g := newGuest(t, newVM(t))
	set := []MSREntry{
		{Index: MSRLStar, Data: 0xffffffff81000000}, {Index: MSRStar, Data: 0x23001000000000},
		{Index: MSRKernelGSBase, Data: 0xffff888000000000},
	}
	if n, err := g.cpu.SetMSRs(set); n != len(set) || err != nil {
		t.Fatalf("SetMSRs: %d, %v", n, err)
	}
	got := []MSREntry{{Index: MSRLStar}, {Index: MSRStar}, {Index: MSRKernelGSBase}, {Index: 0xdeadbeef}, {Index: MSRStar}}
	if n, err := g.cpu.GetMSRs(got); n != 3 || err != nil || !slices.Equal(got[:3], set) || got[4].Data != 0 {
		t.Errorf("GetMSRs: %d, %v, %+v; want the first 3 of %+v", n, err, got, set)
	}

	many := slices.Repeat([]MSREntry{{Index: MSRStar}}, 2*maxMSRs+1)
	if n, err := g.cpu.GetMSRs(many); n != len(many) || err != nil || many[len(many)-1].Data != set[1].Data {
		t.Errorf("%d at once: %d, %v", len(many), n, err)
	}
	many[maxMSRs+5].Index = 0xdeadbeef
	if n, err := g.cpu.GetMSRs(many); n != maxMSRs+5 || err != nil {
		t.Errorf("an unknown one behind %d: %d, %v", maxMSRs+5, n, err)
	}

	// What a save and restore does: all that can be read can nearly always be written back.
	refused := 0
	for _, index := range must[[]uint32](t)(openSystem(t).MSRIndexList()) {
		one := []MSREntry{{Index: index}}
		if n := must[int](t)(g.cpu.GetMSRs(one)); n == 1 && must[int](t)(g.cpu.SetMSRs(one)) == 0 {
			refused++
		}
	}
	if refused > 5 {
		t.Errorf("%d MSRs can be read but not written back", refused)
	}
}

func TestLAPIC(t *testing.T) {
	g := newGuest(t, newIRQVM(t))
	l := must[LAPIC](t)(g.cpu.GetLAPIC())
	if v := l.Reg(APICSVR); v != 0xff {
		t.Errorf("SVR %#x after reset, want 0xff", v)
	}
	l.SetReg(APICSVR, 0x1ff)
	l.SetReg(APICLINT0, 0x700) // ExtINT
	l.SetReg(APICLINT1, 0x400) // NMI
	check(t, g.cpu.SetLAPIC(l))
	got := must[LAPIC](t)(g.cpu.GetLAPIC())
	for reg, want := range map[int]uint32{APICSVR: 0x1ff, APICLINT0: 0x700, APICLINT1: 0x400, APICID: 0} {
		if v := got.Reg(reg); v != want {
			t.Errorf("register %#x: %#x, want %#x", reg, v, want)
		}
	}

	bare := newVM(t)
	cpu := must[*VCPU](t)(bare.CreateVCPU(0))
	defer cpu.Close()
	if _, err := cpu.GetLAPIC(); err == nil {
		t.Error("a local APIC without CreateIRQChip")
	}
}

func TestMPState(t *testing.T) {
	vm := newIRQVM(t)
	needCap(t, vm, CapMPState)
	g := newGuest(t, vm)
	ap := must[*VCPU](t)(vm.CreateVCPU(1))
	defer ap.Close()
	_, err := vm.CreateVCPU(1)
	wantErrno(t, err, unix.EEXIST)

	for _, c := range []struct {
		cpu  *VCPU
		want MPState
	}{{g.cpu, MPStateRunnable}, {ap, MPStateUninitialized}} {
		if got := must[MPState](t)(c.cpu.GetMPState()); got != c.want {
			t.Errorf("a new vCPU is %v, want %v", got, c.want)
		}
	}
	check(t, g.cpu.SetMPState(MPStateHalted))
	if got := must[MPState](t)(g.cpu.GetMPState()); got != MPStateHalted {
		t.Errorf("%v, want halted", got)
	}
	check(t, ap.SetMPState(MPStateRunnable))
	if got := must[MPState](t)(ap.GetMPState()); got != MPStateRunnable {
		t.Errorf("%v, want runnable", got)
	}
}

func TestEvents(t *testing.T) {
	g := newGuest(t, newIRQVM(t))
	needCap(t, g.vm, CapVCPUEvents)
	if e := must[Events](t)(g.cpu.GetEvents()); e.NMI.Pending != 0 || e.Exception.Injected != 0 {
		t.Errorf("a new vCPU has events: %+v", e)
	}
	needCap(t, g.vm, CapUserNMI)
	check(t, g.cpu.NMI())
	e := must[Events](t)(g.cpu.GetEvents())
	if e.NMI.Pending != 1 {
		t.Errorf("NMI queued, got %+v", e)
	}
	e.NMI.Pending = 0
	e.Interrupt.Injected, e.Interrupt.Nr = 1, 0x33
	check(t, g.cpu.SetEvents(e))
	got := must[Events](t)(g.cpu.GetEvents())
	if got.NMI.Pending != 0 || got.Interrupt.Injected != 1 || got.Interrupt.Nr != 0x33 {
		t.Errorf("got %+v\nwant %+v", got, e)
	}
}

func TestCPUID(t *testing.T) {
	g := newGuest(t, newVM(t),
		0x0f, 0xa2, // cpuid
		0xf4) // hlt
	list := must[[]CPUIDEntry](t)(openSystem(t).SupportedCPUID())
	list = append(list, CPUIDEntry{Function: 0x40000010, EAX: 0x11, EBX: 0x22, ECX: 0x33, EDX: 0x44})
	check(t, g.cpu.SetCPUID(list))
	got := must[[]CPUIDEntry](t)(g.cpu.GetCPUID())
	if len(got) != len(list) || got[len(got)-1] != list[len(list)-1] {
		t.Errorf("%d leaves, the last %+v; want %d, %+v", len(got), got[len(got)-1], len(list), list[len(list)-1])
	}
	g.setRegs(func(r *Regs) { r.RAX = 0x40000010 })
	g.run(ExitHLT)
	if r := must[Regs](t)(g.cpu.GetRegs()); r.RAX != 0x11 || r.RBX != 0x22 || r.RCX != 0x33 || r.RDX != 0x44 {
		t.Errorf("the guest sees %#x %#x %#x %#x", r.RAX, r.RBX, r.RCX, r.RDX)
	}
}

func TestTSC(t *testing.T) {
	g := newGuest(t, newVM(t))
	needCap(t, g.vm, CapGetTSCKHz)
	khz := must[int](t)(g.cpu.GetTSCKHz())
	if khz < 100_000 || khz > 10_000_000 {
		t.Errorf("TSC at %d kHz", khz)
	}
	check(t, g.cpu.SetTSCKHz(khz))
	if got := must[int](t)(g.cpu.GetTSCKHz()); got != khz {
		t.Errorf("TSC at %d kHz, want %d", got, khz)
	}

	if must[int](t)(g.vm.CheckExtension(CapTSCControl)) == 0 {
		wantErrno(t, g.cpu.SetTSCKHz(khz/2), unix.EINVAL)
	} else {
		check(t, g.cpu.SetTSCKHz(khz/2))
		if got := must[int](t)(g.cpu.GetTSCKHz()); got != khz/2 {
			t.Errorf("TSC at %d kHz, want %d", got, khz/2)
		}
		check(t, g.cpu.SetTSCKHz(khz))
	}

	needCap(t, g.vm, CapVCPUAttributes)
	const back = 1 << 50 // more than any host's TSC has counted
	tsc := []MSREntry{{Index: MSRTSC, Data: back}}
	must[int](t)(g.cpu.SetMSRs(tsc))
	if must[int](t)(g.cpu.GetMSRs(tsc)); tsc[0].Data < back {
		t.Skip("this KVM gives guests the host's TSC as it is (writing the TSC has no effect)")
	}
	offset := must[uint64](t)(g.cpu.GetTSCOffset())
	check(t, g.cpu.SetTSCOffset(offset+back))
	// Where the host's own TSC is unstable, KVM shifts offsets all the time.
	second := int64(khz) * 1000
	if got := must[uint64](t)(g.cpu.GetTSCOffset()); int64(got-offset-back) < -second || int64(got-offset-back) > second {
		t.Errorf("offset %#x, want %#x", got, offset+back)
	}
	if n := must[int](t)(g.cpu.GetMSRs(tsc)); n != 1 || tsc[0].Data < 2*back-uint64(second) {
		t.Errorf("TSC %#x (%d read), 2^50 ahead of the 2^50 it was set to", tsc[0].Data, n)
	}
}

func TestKVMClockCtrl(t *testing.T) {
	g := newGuest(t, newVM(t))
	needCap(t, g.vm, CapKVMClockCtrl)
	wantErrno(t, g.cpu.KVMClockCtrl(), unix.EINVAL) // the guest has none yet
	if n := must[int](t)(g.cpu.SetMSRs([]MSREntry{{Index: MSRKVMSystemTimeNew, Data: dataAddr | 1}})); n != 1 {
		t.Fatal("kvmclock refused")
	}
	check(t, g.cpu.KVMClockCtrl())
}

func TestVCPUHandle(t *testing.T) {
	vm := newVM(t)
	cpu := must[*VCPU](t)(vm.CreateVCPU(0))
	check(t, cpu.Close())
	check(t, cpu.Close())
	_, err := cpu.GetRegs()
	wantErrno(t, err, unix.EBADF)
}
