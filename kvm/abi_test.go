package kvm

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStructLayout compares with sizeof and offsetof in the kernel's headers.
func TestStructLayout(t *testing.T) {
	for _, s := range []struct {
		typ     reflect.Type
		size    uintptr
		offsets map[string]uintptr
	}{
		{reflect.TypeFor[Regs](), 144, map[string]uintptr{"RDX": 24, "RBP": 56, "R15": 120, "RIP": 128, "RFLAGS": 136}},
		{reflect.TypeFor[Segment](), 24, map[string]uintptr{"Limit": 8, "Selector": 12, "Type": 14, "Unusable": 22}},
		{reflect.TypeFor[DescriptorTable](), 16, nil},
		{reflect.TypeFor[Sregs](), 312, map[string]uintptr{"LDT": 168, "GDT": 192, "CR0": 224, "EFER": 264, "InterruptBitmap": 280}},
		{reflect.TypeFor[DebugRegs](), 128, map[string]uintptr{"DR6": 32, "Flags": 48}},
		{reflect.TypeFor[FPU](), 416, map[string]uintptr{"FCW": 128, "LastIP": 136, "XMM": 152, "MXCSR": 408}},
		{reflect.TypeFor[XCR](), 16, nil},
		{reflect.TypeFor[XCRS](), 392, map[string]uintptr{"Regs": 8}},
		{reflect.TypeFor[MSREntry](), 16, map[string]uintptr{"Data": 8}},
		{reflect.TypeFor[CPUIDEntry](), 40, map[string]uintptr{"EAX": 12, "EDX": 24}},
		{reflect.TypeFor[listHeader](), 8, nil},
		{reflect.TypeFor[LAPIC](), 1024, nil},
		{reflect.TypeFor[MPState](), 4, nil},
		{reflect.TypeFor[Events](), 64, map[string]uintptr{
			"Interrupt": 8, "NMI": 12, "SIPIVector": 16, "Flags": 20, "SMI": 24, "TripleFault": 28,
			"ExceptionHasPayload": 55, "ExceptionPayload": 56,
		}},
		{reflect.TypeFor[IRQChip](), 520, map[string]uintptr{"Data": 8}},
		{reflect.TypeFor[PITChannel](), 24, map[string]uintptr{"LatchedCount": 4, "Gate": 15, "CountLoadTime": 16}},
		{reflect.TypeFor[PITState](), 112, map[string]uintptr{"Flags": 72}},
		{reflect.TypeFor[pitConfig](), 64, nil},
		{reflect.TypeFor[irqLevel](), 8, nil},
		{reflect.TypeFor[Clock](), 48, map[string]uintptr{"Flags": 8, "Realtime": 16, "HostTSC": 24}},
		{reflect.TypeFor[Route](), 48, map[string]uintptr{"kind": 4, "to": 16}},
		{reflect.TypeFor[irqfd](), 32, map[string]uintptr{"flags": 8}},
		{reflect.TypeFor[ioeventfd](), 64, map[string]uintptr{"length": 16, "fd": 20, "flags": 24}},
		{reflect.TypeFor[capability](), 104, map[string]uintptr{"args": 8}},
		{reflect.TypeFor[deviceAttr](), 24, map[string]uintptr{"group": 4, "attr": 8, "addr": 16}},
		{reflect.TypeFor[userspaceMemoryRegion](), 32, map[string]uintptr{"guestPhysAddr": 8, "userspaceAddr": 24}},
		{reflect.TypeFor[dirtyLog](), 16, map[string]uintptr{"bitmap": 8}},
		{reflect.TypeFor[dirtyLogRange](), 24, map[string]uintptr{"numPages": 4, "firstPage": 8, "bitmap": 16}},
	} {
		if got := s.typ.Size(); got != s.size {
			t.Errorf("%v: %d bytes, the kernel has %d", s.typ, got, s.size)
		}
		for name, want := range s.offsets {
			f, ok := s.typ.FieldByName(name)
			if !ok || f.Offset != want {
				t.Errorf("%v.%s: offset %d, the kernel has %d", s.typ, name, f.Offset, want)
			}
		}
	}
}

func TestRequestNumbers(t *testing.T) {
	for _, c := range []struct {
		req  request
		want uint32
	}{
		{getAPIVersion, 0xae00}, {createVM, 0xae01}, {getMSRIndexList, 0xc004ae02}, {getSupportedCPUID, 0xc008ae05},
		{createVCPU, 0xae41}, {getDirtyLog, 0x4010ae42},
		{setUserMemoryRegion, 0x4020ae46}, {setIdentityMapAddr, 0x4008ae48}, {irqLine, 0x4008ae61},
		{getIRQChip, 0xc208ae62}, {setIRQChip, 0x8208ae63}, {setGSIRouting, 0x4008ae6a}, {assignIRQFD, 0x4020ae76},
		{createPIT2, 0x4040ae77}, {assignIOEventFD, 0x4040ae79}, {setClock, 0x4030ae7b}, {getClock, 0x8030ae7c},
		{getPIT2, 0x8070ae9f}, {setPIT2, 0x4070aea0}, {clearDirtyLog, 0xc018aec0},
		{request{"KVM_RUN", runCode}, 0xae80}, {getRegs, 0x8090ae81}, {setRegs, 0x4090ae82}, {getSregs, 0x8138ae83},
		{setSregs, 0x4138ae84}, {getMSRs, 0xc008ae88}, {setMSRs, 0x4008ae89}, {getFPU, 0x81a0ae8c}, {setFPU, 0x41a0ae8d},
		{getLAPIC, 0x8400ae8e}, {setLAPIC, 0x4400ae8f}, {setCPUID2, 0x4008ae90}, {getCPUID2, 0xc008ae91},
		{getMPState, 0x8004ae98}, {setMPState, 0x4004ae99}, {injectNMI, 0xae9a}, {getVCPUEvents, 0x8040ae9f},
		{setVCPUEvents, 0x4040aea0}, {getDebugRegs, 0x8080aea1}, {setDebugRegs, 0x4080aea2}, {enableCap, 0x4068aea3},
		{setTSCKHz, 0xaea2}, {getTSCKHz, 0xaea3}, {getXSAVE, 0x9000aea4}, {setXSAVE, 0x5000aea5}, {getXSAVE2, 0x9000aecf},
		{getXCRS, 0x8188aea6}, {setXCRS, 0x4188aea7}, {kvmclockCtrl, 0xaead}, {setDeviceAttr, 0x4018aee1},
		{getDeviceAttr, 0x4018aee2},
	} {
		if c.req.code != c.want {
			t.Errorf("%s = %#x, the kernel has %#x", c.req.name, c.req.code, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"KVM_CAP_IRQCHIP":         CapIRQChip.String(),
		"KVM_CAP 9999":            Cap(9999).String(),
		"mmio":                    ExitMMIO.String(),
		"exit reason 99":          ExitReason(99).String(),
		"halted":                  MPStateHalted.String(),
		"MP state 77":             MPState(77).String(),
		"KVM_RUN: file exists":    (&Error{"KVM_RUN", unix.EEXIST}).Error(),
		"shutdown (triple fault)": ExitShutdown.String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
