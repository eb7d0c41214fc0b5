package kvm

import (
	"encoding/binary"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIOExit(t *testing.T) {
	g := newGuest(t, newVM(t),
		0xb0, 0x42, // mov al, 0x42
		0xe6, 0x10, // out 0x10, al
		0x66, 0xba, 0xfc, 0x0c, // mov dx, 0xcfc
		0xed,       // in eax, dx
		0x89, 0xc1, // mov ecx, eax
		0x66, 0xe7, 0x12, // out 0x12, ax
		0xf4) // hlt
	g.run(ExitIO)
	if e := g.cpu.IO(); e.Port != 0x10 || !e.Write || e.Size != 1 || e.Count != 1 || !slices.Equal(e.Data, []byte{0x42}) {
		t.Errorf("out 0x10, al: %+v", e)
	}
	g.run(ExitIO)
	e := g.cpu.IO()
	if e.Port != 0xcfc || e.Write || e.Size != 4 || e.Count != 1 || len(e.Data) != 4 {
		t.Fatalf("in eax, 0xcfc: %+v", e)
	}
	binary.LittleEndian.PutUint32(e.Data, 0xcafebabe)
	g.run(ExitIO)
	if e := g.cpu.IO(); e.Port != 0x12 || !e.Write || e.Size != 2 || !slices.Equal(e.Data, []byte{0xbe, 0xba}) {
		t.Errorf("out 0x12, ax: %+v", e)
	}
	g.run(ExitHLT)
	if r := must[Regs](t)(g.cpu.GetRegs()); uint32(r.RCX) != 0xcafebabe {
		t.Errorf("the guest read %#x, want 0xcafebabe", r.RCX)
	}
}

func TestStringIO(t *testing.T) {
	g := newGuest(t, newVM(t),
		0xf3, 0x66, 0x6f, // rep outsw
		0xf4) // hlt
	copy(g.data, "abcdefgh")
	g.setRegs(func(r *Regs) { r.RSI, r.RCX, r.RDX = dataAddr, 4, 0x3f8 })
	var got []byte
	for len(got) < 8 { // KVM may split it
		g.run(ExitIO)
		e := g.cpu.IO()
		if e.Port != 0x3f8 || !e.Write || e.Size != 2 || len(e.Data) != 2*e.Count {
			t.Fatalf("outsw: %+v", e)
		}
		got = append(got, e.Data...)
	}
	if string(got) != "abcdefgh" {
		t.Errorf("got %q", got)
	}
	g.run(ExitHLT)
}

func TestMMIOExit(t *testing.T) {
	g := newGuest(t, newVM(t),
		0x89, 0x03, // mov [rbx], eax
		0x48, 0x8b, 0x4b, 0x08, // mov rcx, [rbx+8]
		0x88, 0x4b, 0x03, // mov [rbx+3], cl
		0xf4) // hlt
	g.setRegs(func(r *Regs) { r.RBX, r.RAX = mmioAddr, 0x11223344 })
	g.run(ExitMMIO)
	if e := g.cpu.MMIO(); e.Addr != mmioAddr || !e.Write || !slices.Equal(e.Data, []byte{0x44, 0x33, 0x22, 0x11}) {
		t.Errorf("32-bit store: %+v", e)
	}
	g.run(ExitMMIO)
	e := g.cpu.MMIO()
	if e.Addr != mmioAddr+8 || e.Write || len(e.Data) != 8 {
		t.Fatalf("64-bit load: %+v", e)
	}
	binary.LittleEndian.PutUint64(e.Data, 0x8877665544332299)
	g.run(ExitMMIO)
	if e := g.cpu.MMIO(); e.Addr != mmioAddr+3 || !e.Write || !slices.Equal(e.Data, []byte{0x99}) {
		t.Errorf("8-bit store: %+v", e)
	}
	g.run(ExitHLT)
	if r := must[Regs](t)(g.cpu.GetRegs()); r.RCX != 0x8877665544332299 {
		t.Errorf("the guest read %#x", r.RCX)
	}
}

// TestRealMode: what a vCPU does with no more than a segment base.
func TestRealMode(t *testing.T) {
	g := newGuest(t, newVM(t), 0xb0, 0x07, 0xe6, 0x21, 0xf4) // mov al, 7; out 0x21, al; hlt
	fresh := must[*VCPU](t)(g.vm.CreateVCPU(1))
	defer fresh.Close()
	s := must[Sregs](t)(fresh.GetSregs())
	s.CS.Base, s.CS.Selector = 0, 0
	check(t, g.cpu.SetSregs(s))
	check(t, g.cpu.SetRegs(Regs{RIP: codeAddr, RFLAGS: 2}))
	g.run(ExitIO)
	if e := g.cpu.IO(); e.Port != 0x21 || !e.Write || e.Data[0] != 7 {
		t.Errorf("out 0x21, al: %+v", e)
	}
	g.run(ExitHLT)
}

func TestShutdownExit(t *testing.T) {
	g := newGuest(t, newVM(t), 0x0f, 0x0b) // ud2 with an empty IDT: triple fault
	g.run(ExitShutdown)
}

func TestIOEventFD(t *testing.T) {
	vm := newVM(t)
	any, two, seven := newEventFD(t), newEventFD(t), newEventFD(t)
	fds := []IOEventFD{
		{Addr: mmioAddr, FD: any},                                           // any width
		{Addr: mmioAddr + 0x100, Len: 2, FD: two},                           // 16 bits
		{Addr: 0x60, Len: 1, FD: seven, PIO: true, Match: true, Data: 0x07}, // a port and a value
	}
	if needCap(t, vm, CapIOEventFD); must[int](t)(vm.CheckExtension(CapIOEventFDAnyLength)) == 0 {
		t.Skipf("this KVM lacks %v", CapIOEventFDAnyLength)
	}
	for _, e := range fds {
		check(t, vm.AssignIOEventFD(e))
	}
	wantErrno(t, vm.AssignIOEventFD(fds[0]), unix.EEXIST)

	g := newGuest(t, vm,
		0x88, 0x03, // mov [rbx], al
		0x89, 0x03, // mov [rbx], eax
		0x48, 0x89, 0x03, // mov [rbx], rax
		0x66, 0x89, 0x83, 0, 1, 0, 0, // mov [rbx+0x100], ax
		0x89, 0x83, 0, 1, 0, 0, // mov [rbx+0x100], eax: an exit
		0xb0, 0x07, 0xe6, 0x60, // mov al, 7; out 0x60, al
		0xb0, 0x08, 0xe6, 0x60, // mov al, 8; out 0x60, al: an exit
		0xb0, 0x07, 0xe6, 0x60, // mov al, 7; out 0x60, al: an exit once disarmed
		0xf4) // hlt
	g.setRegs(func(r *Regs) { r.RBX = mmioAddr })

	g.run(ExitMMIO)
	if e := g.cpu.MMIO(); e.Addr != mmioAddr+0x100 || len(e.Data) != 4 {
		t.Errorf("exit by %+v, want the 32-bit store to %#x", e, mmioAddr+0x100)
	}
	if n := signals(t, any); n != 3 {
		t.Errorf("any width: %d signals, want 3", n)
	}
	if n := signals(t, two); n != 1 {
		t.Errorf("16 bits: %d signals, want 1", n)
	}
	g.run(ExitIO)
	if e := g.cpu.IO(); e.Port != 0x60 || e.Data[0] != 8 {
		t.Errorf("exit by %+v, want the 8 to port 0x60", e)
	}
	if n := signals(t, seven); n != 1 {
		t.Errorf("value 7: %d signals, want 1", n)
	}

	for _, e := range fds {
		check(t, vm.DeassignIOEventFD(e))
		wantErrno(t, vm.DeassignIOEventFD(e), unix.ENOENT)
	}
	g.run(ExitIO)
	if e := g.cpu.IO(); e.Port != 0x60 || e.Data[0] != 7 || signals(t, seven) != 0 {
		t.Errorf("exit by %+v, want the 7 to port 0x60, unsignalled", e)
	}
	g.run(ExitHLT)
}

func TestImmediateExit(t *testing.T) {
	vm := newVM(t)
	needCap(t, vm, CapImmediateExit)
	g := newGuest(t, vm, 0xb0, 0x01, 0xf4) // mov al, 1; hlt
	g.cpu.SetImmediateExit(true)
	for range 3 {
		if err := g.cpu.Run(); err != unix.EINTR {
			t.Fatalf("Run: %v, want EINTR", err)
		}
	}
	if r := must[Regs](t)(g.cpu.GetRegs()); r.RIP != codeAddr || r.RAX != 0 {
		t.Errorf("guest code ran: RIP %#x, RAX %#x", r.RIP, r.RAX)
	}
	g.cpu.SetImmediateExit(false)
	g.run(ExitHLT)
}

// TestStopFromOutside stops a guest that never leaves by itself, again and
// again, at moments that fall before, into and after the entry.
func TestStopFromOutside(t *testing.T) {
	g := newGuest(t, newVM(t), 0xeb, 0xfe) // jmp to itself
	tid := unix.Gettid()
	for i := range 50 {
		stopped := make(chan time.Time, 1)
		go func() {
			time.Sleep(time.Duration(i*20) * time.Microsecond)
			at := time.Now()
			g.cpu.SetImmediateExit(true)
			unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
			stopped <- at
		}()
		hung := time.AfterFunc(runLimit, func() { panic("the vCPU does not stop") })
		for {
			if err := g.cpu.Run(); err != unix.EINTR {
				t.Fatalf("Run: %v, exit %v; want EINTR", err, g.cpu.ExitReason())
			}
			if len(stopped) > 0 { // otherwise a signal of the Go runtime
				break
			}
		}
		hung.Stop()
		<-stopped
		g.cpu.SetImmediateExit(false)
	}
	if r := must[Regs](t)(g.cpu.GetRegs()); r.RIP != codeAddr {
		t.Errorf("RIP %#x, want %#x", r.RIP, codeAddr)
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	g := newGuest(t, newVM(t),
		0xe6, 0x10, // out 0x10, al
		0x89, 0x03, // mov [rbx], eax
		0xeb, 0xfa) // again
	g.setRegs(func(r *Regs) { r.RBX = mmioAddr })
	var sum int
	run := func() {
		for g.cpu.Run() == unix.EINTR {
			runtime.Gosched()
		}
	}
	n := testing.AllocsPerRun(100, func() {
		run()
		sum += int(g.cpu.IO().Data[0]) + int(g.cpu.ExitReason())
		run()
		sum += int(g.cpu.MMIO().Data[0]) + int(g.cpu.ExitReason())
		g.cpu.SetImmediateExit(true)
		if g.cpu.Run() != unix.EINTR {
			sum = -1 << 30
		}
		g.cpu.SetImmediateExit(false)
	})
	if want := 101 * int(ExitIO+ExitMMIO); n != 0 || sum != want {
		t.Errorf("%v allocations, sum %d; want 0 and %d", n, sum, want)
	}
}
