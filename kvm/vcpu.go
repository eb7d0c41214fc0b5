package kvm

import (
	"os"

	"golang.org/x/sys/unix"
)

// VCPU is one virtual CPU. Who may call what from which thread is in the
// package comment.
type VCPU struct {
	fd        int
	run       []byte // struct kvm_run and what follows it, shared with the kernel
	xsaveSize int    // bytes of its XSAVE area
	cpuidLen  int    // leaves set; KVM_GET_CPUID2 doesn't tell on older kernels (6.1)
}

// CreateVCPU makes a vCPU; id is its APIC ID, below CheckExtension(CapMaxVCPUID)
// (api.rst 4.7). On a VM with CreateIRQChip vCPU 0 is the boot processor and all others
// wait for INIT and SIPI. The one goroutine that will call Run should call this too.
func (vm *VM) CreateVCPU(id int) (*VCPU, error) {
	size, err := vm.CheckExtension(CapXSAVE2)
	if err != nil {
		return nil, err
	}
	fd, err := ioctlValue(vm.fd, createVCPU, uint64(uint32(id)))
	if err != nil {
		return nil, err
	}
	run, err := unix.Mmap(fd, 0, vm.runSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("mmap of kvm_run", err)
	}
	return &VCPU{fd: fd, run: run, xsaveSize: max(size, xsaveSize)}, nil
}

// Close unmaps kvm_run and drops the vCPU.
//
// Preconditions: Run has returned and nobody calls any method any more,
// SetImmediateExit included; slices from IO and MMIO are no longer used.
func (c *VCPU) Close() error {
	if c.fd < 0 {
		return nil
	}
	err := os.NewSyscallError("munmap of kvm_run", unix.Munmap(c.run))
	c.run = nil
	if e := closeFD(&c.fd); err == nil {
		err = e
	}
	return err
}

// Run lets the guest run until something needs user space; ExitReason says what
// (api.rst 4.10). It allocates nothing.
//
// The error is a bare unix.Errno. EINTR is the ordinary answer to a signal or to
// SetImmediateExit, and leaves ExitReason at ExitIntr or as it was. EAGAIN: the vCPU waits
// for its SIPI. An exit by IO or MMIO is complete, and the vCPU's state fit
// to be saved, only once Run has been entered again (with SetImmediateExit, if no guest code is to run).
//
// Preconditions: the calling goroutine is locked to its thread, always the same one.
func (c *VCPU) Run() error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), runCode, 0)
	if errno != 0 {
		return errno // no allocation: errnos are below 256
	}
	return nil
}

// NMI queues a non-maskable interrupt (api.rst 4.64, needs CapUserNMI).
func (c *VCPU) NMI() error {
	_, err := ioctlValue(c.fd, injectNMI, 0)
	return err
}
