package kvm

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const device = "/dev/kvm"

// Guest-physical layout of the tests' machine. Page tables map the first GiB and
// the fourth to themselves, so mmioAddr and the local APIC can be reached though there is no memory.
const (
	sysSlot  = 0 // code, stack and tables: never logged
	dataSlot = 1 // what guests write

	pml4Addr  = 0x1000
	pdptAddr  = 0x2000
	pdAddr    = 0x3000 // of the first GiB
	pd3Addr   = 0xa000 // of the fourth
	idtAddr   = 0x4000
	gdtAddr   = 0x5000
	codeAddr  = 0x6000
	irqAddr   = 0x7000 // interrupt handler
	stackAddr = 0x9000 // grows down
	sysSize   = 0x10000
	dataAddr  = 0x100000
	dataPages = 200
	mmioAddr  = 0x10000000

	runLimit = 20 * time.Second // a run that takes longer has hung
)

func openSystem(t testing.TB) *System {
	t.Helper()
	s, err := Open(device)
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must returns v, for calls in the middle of a test that can only fail with KVM broken.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func wantErrno(t testing.TB, err error, want unix.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func needCap(t testing.TB, vm *VM, c Cap) int {
	t.Helper()
	n := must[int](t)(vm.CheckExtension(c))
	if n == 0 {
		t.Skipf("this KVM lacks %v", c)
	}
	return n
}

func newVM(t testing.TB) *VM {
	t.Helper()
	vm := must[*VM](t)(openSystem(t).CreateVM())
	t.Cleanup(func() { check(t, vm.Close()) })
	return vm
}

func newMemory(t testing.TB, size int) []byte {
	t.Helper()
	m := must[[]byte](t)(unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS))
	t.Cleanup(func() { check(t, unix.Munmap(m)) })
	return m
}

// newEventFD makes a non-blocking eventfd.
func newEventFD(t testing.TB) int {
	t.Helper()
	fd := must[int](t)(unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// signals takes the number of signals out of an eventfd.
func signals(t testing.TB, fd int) uint64 {
	t.Helper()
	var b [8]byte
	if _, err := unix.Read(fd, b[:]); err == unix.EAGAIN {
		return 0
	} else {
		check(t, err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

func signal(t testing.TB, fd int) {
	t.Helper()
	must[int](t)(unix.Write(fd, binary.LittleEndian.AppendUint64(nil, 1)))
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

// guest is a VM with one vCPU about to run code in 64-bit mode, ring 0,
// interrupts off, RBX at the data slot.
type guest struct {
	*testing.T
	vm   *VM
	cpu  *VCPU
	sys  []byte // memory of sysSlot
	data []byte // memory of dataSlot, at dataAddr
}

// newGuest makes a guest on vm and locks the test to its thread.
func newGuest(t *testing.T, vm *VM, code ...byte) *guest {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)

	g := &guest{T: t, vm: vm, sys: newMemory(t, sysSize), data: newMemory(t, dataPages*PageSize)}
	check(t, vm.SetUserMemoryRegion(MemoryRegion{Slot: sysSlot, Size: sysSize, Memory: g.sys}))
	g.setData(0)
	g.cpu = must[*VCPU](t)(vm.CreateVCPU(0))
	t.Cleanup(func() { check(t, g.cpu.Close()) })
	check(t, g.cpu.SetCPUID(must[[]CPUIDEntry](t)(openSystem(t).SupportedCPUID())))

	// Accessed and dirty bits (0x60) are preset: nothing but the test's own stores writes memory.
	put := binary.LittleEndian.PutUint64
	put(g.sys[pml4Addr:], pdptAddr|0x63)
	put(g.sys[pdptAddr:], pdAddr|0x63)
	put(g.sys[pdptAddr+8*3:], pd3Addr|0x63)
	for i := range uint64(512) {
		put(g.sys[pdAddr+8*i:], i<<21|0xe3)
		put(g.sys[pd3Addr+8*i:], 3<<30|i<<21|0xe3)
	}
	put(g.sys[gdtAddr+8:], 0x00af9b000000ffff)  // 8: code
	put(g.sys[gdtAddr+16:], 0x00cf93000000ffff) // 16: data
	copy(g.sys[codeAddr:], code)

	s := must[Sregs](t)(g.cpu.GetSregs())
	s.CS = Segment{Limit: 0xffffffff, Selector: 8, Type: 0xb, Present: 1, S: 1, L: 1, G: 1}
	data := Segment{Limit: 0xffffffff, Selector: 16, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR = Segment{Limit: 0x67, Type: 0xb, Present: 1}
	s.GDT = DescriptorTable{Base: gdtAddr, Limit: 23}
	s.IDT = DescriptorTable{Base: idtAddr, Limit: 0xfff}
	s.CR0, s.CR3, s.CR4, s.EFER = 0x80000031, pml4Addr, 0x20, 0x500
	check(t, g.cpu.SetSregs(s))
	check(t, g.cpu.SetRegs(Regs{RIP: codeAddr, RSP: stackAddr, RBX: dataAddr, RFLAGS: 2}))
	return g
}

// setData sets the data slot's flags.
func (g *guest) setData(flags uint32) {
	g.Helper()
	check(g, g.vm.SetUserMemoryRegion(MemoryRegion{
		Slot: dataSlot, Flags: flags, GuestPhysAddr: dataAddr, Size: dataPages * PageSize, Memory: g.data,
	}))
}

// setRegs changes some registers.
func (g *guest) setRegs(change func(*Regs)) {
	g.Helper()
	r := must[Regs](g)(g.cpu.GetRegs())
	change(&r)
	check(g, g.cpu.SetRegs(r))
}

// run runs to the next exit, which must be of kind want.
func (g *guest) run(want ExitReason) {
	g.Helper()
	hung := false
	tid := unix.Gettid()
	done := make(chan struct{})
	watchdog := time.AfterFunc(runLimit, func() {
		defer close(done)
		hung = true
		g.cpu.SetImmediateExit(true)
		unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
	})
	err := g.cpu.Run()
	for err == unix.EINTR && watchdog.Stop() { // a signal of the Go runtime
		watchdog.Reset(runLimit)
		err = g.cpu.Run()
	}
	if !watchdog.Stop() {
		<-done
	}
	switch {
	case hung:
		g.Fatalf("the guest did not leave with %v", want)
	case err != nil:
		g.Fatalf("Run: %v", err)
	case g.cpu.ExitReason() != want:
		switch g.cpu.ExitReason() {
		case ExitInternalError:
			sub, data := g.cpu.InternalError()
			g.Fatalf("internal error %d %#x, want exit %v", sub, data, want)
		case ExitFailEntry:
			reason, _ := g.cpu.FailEntry()
			g.Fatalf("entry failed, %#x, want exit %v", reason, want)
		}
		g.Fatalf("exit %v at %#x, want %v", g.cpu.ExitReason(), must[Regs](g)(g.cpu.GetRegs()).RIP, want)
	}
}
