// Package kvm holds typed bindings for the ioctls of /dev/kvm that ebb uses,
// and nothing else: no policy, no logging, no goroutines.
//
// Three handles mirror the three kinds of KVM file descriptor:
//
//	System  /dev/kvm itself      what the host can do, and CreateVM
//	  └ VM                       memory slots, interrupt controllers, clock, routes, and CreateVCPU
//	      └ VCPU                 registers, Run, and the shared kvm_run area that says why Run returned
//
// A method is one ioctl, named after it. A struct handed to the kernel has the
// kernel's layout (struct kvm_regs is Regs, and so on) under Go names; the few
// ioctls that take an array behind a header take a slice. Nothing is closed by
// a finalizer: who opens a handle closes it, a VCPU before its VM.
//
// # Threads
//
// Methods of System and VM may be called from any goroutine, several at once.
// KVM serializes the ioctls of one vCPU among themselves, so every method of
// VCPU that is an ioctl waits while Run is inside the kernel; they belong on the
// thread that calls Run (runtime.LockOSThread), or anywhere while the vCPU is
// known to be stopped. The accessors of kvm_run (ExitReason, IO, MMIO, ...)
// belong to that thread too. The one exception is SetImmediateExit, which any
// goroutine may call at any time before Close. Close must not run
// beside another method of the same handle.
//
// # Errors
//
// A failed ioctl is an *Error, which has the ioctl's name and unwraps to the
// errno, so errors.Is(err, unix.ENOENT) and errors.Is(err, os.ErrPermission)
// work. EINTR is retried everywhere except in Run, where it is the ordinary
// way out and comes back bare.
//
// # References
//
// "api.rst 4.10" in a comment means that section of the kernel's
// Documentation/virt/kvm/api.rst. Offsets and sizes follow
// include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h. The package is
// for x86-64.
package kvm
