package machine

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/boot"
	"github.com/ebb-vmm/ebb/machine/memory"
)

// kvmPath is the device every machine needs.
const kvmPath = "/dev/kvm"

// Host is what a host's KVM offers.
type Host struct {
	MaxCPUs int // vCPUs of one guest
}

// Probe tells what guests this host can run; an error if no Linux guest, saying
// why and what to do.
func Probe() (Host, error) {
	s, err := openKVM()
	if err != nil {
		return Host{}, err
	}
	defer s.Close()
	if err := requireLinux(s); err != nil {
		return Host{}, err
	}
	n, err := s.CheckExtension(kvm.CapMaxVCPUs)
	if err != nil {
		return Host{}, err
	}
	return Host{MaxCPUs: min(n, MaxCPUs)}, nil
}

// openKVM opens /dev/kvm and checks that it is a KVM ebb can use. The error says
// what to do.
func openKVM() (*kvm.System, error) {
	s, err := kvm.Open(kvmPath)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%s does not exist: load the module kvm_intel or kvm_amd, and enable virtualization in the firmware or the outer hypervisor", kvmPath)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s may not be opened: run as root or join the group that owns it (usually kvm)", kvmPath)
	case err != nil:
		return nil, err
	}
	if v, err := s.APIVersion(); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s is not KVM (%w): load the module kvm_intel or kvm_amd", kvmPath, err)
	} else if v != kvm.StableAPIVersion {
		s.Close()
		return nil, fmt.Errorf("%s speaks API version %d; ebb needs %d", kvmPath, v, kvm.StableAPIVersion)
	}
	for _, c := range []kvm.Cap{
		kvm.CapIRQChip, kvm.CapUserMemory, kvm.CapSetTSSAddr, kvm.CapExtCPUID, kvm.CapMPState, kvm.CapIRQRouting, kvm.CapIRQFD,
		kvm.CapPIT2, kvm.CapIOEventFD, kvm.CapIOEventFDAnyLength, kvm.CapSetIdentityMapAddr, kvm.CapImmediateExit,
	} {
		if n, err := s.CheckExtension(c); err != nil || n == 0 {
			s.Close()
			return nil, fmt.Errorf("the KVM of this host lacks %v, which ebb needs: Linux 5.13 or later has it", c)
		}
	}
	return s, nil
}

// errSoftwareKVM is why a Linux kernel is refused.
var errSoftwareKVM = errors.New("this host's KVM interprets ring 0 and can't boot Linux; " +
	"run it on a host with hardware virtualization, or through the emulated one with `go run ./tests/lab -- ebb run`")

// requireLinux returns nil if the host's KVM can boot a Linux kernel.
func requireLinux(s *kvm.System) error {
	ok, err := bootsLinux(s)
	if err == nil && !ok {
		err = errSoftwareKVM
	}
	return err
}

// bootsLinux tries whether KVM runs what a Linux kernel is made of. A KVM without
// hardware behind it interprets ring 0, and its interpreter doesn't know every
// instruction: a lock cmpxchg16b tells.
func bootsLinux(s *kvm.System) (bool, error) {
	const donePort = 0xf4
	program := []byte{
		0xf0, 0x48, 0x0f, 0xc7, 0x0c, 0x25, 0x00, 0x00, 0x12, 0x00, // lock cmpxchg16b [0x120000]
		0xe6, donePort, // out donePort, al
		0xf4, // hlt
	}
	ram, err := memory.New(memory.Alignment)
	if err != nil {
		return false, err
	}
	defer ram.Close()
	vm, err := s.CreateVM()
	if err != nil {
		return false, err
	}
	defer vm.Close()
	region := ram.Regions()[0]
	err = vm.SetUserMemoryRegion(kvm.MemoryRegion{Size: uint64(len(region.Bytes)), Memory: region.Bytes})
	if err != nil {
		return false, err
	}
	if err := vm.SetTSSAddr(kvmPages); err != nil {
		return false, err
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		return false, err
	}
	defer cpu.Close()
	supported, err := s.SupportedCPUID()
	if err != nil {
		return false, err
	}
	if err := cpu.SetCPUID(supported); err != nil {
		return false, err
	}
	sregs, err := cpu.GetSregs()
	if err != nil {
		return false, err
	}
	entry := boot.Code(ram, program)
	enter(&sregs, entry)
	if err := cpu.SetSregs(sregs); err != nil {
		return false, err
	}
	if err := cpu.SetRegs(kvm.Regs{RIP: entry.RIP, RFLAGS: 2}); err != nil {
		return false, err
	}
	for {
		switch err := cpu.Run(); {
		case err == nil:
			return cpu.ExitReason() == kvm.ExitIO && cpu.IO().Port == donePort, nil
		case !errors.Is(err, unix.EINTR):
			return false, fmt.Errorf("KVM_RUN: %w", err)
		}
	}
}
