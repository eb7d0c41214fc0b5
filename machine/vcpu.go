package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/bus"
)

// vcpu is one virtual CPU on a thread of its own.
type vcpu struct {
	id          int
	kvm         *kvm.VCPU
	ports, mmio *bus.Bus
	gate        *gate
	ended       func(End, error) // the guest is over; returns at once
	log         *slog.Logger

	thread atomic.Int32 // thread id once it runs
}

// run enters the guest until the gate stops it. It is the goroutine of the vCPU.
func (c *vcpu) run() {
	// Not unlocked: the thread ends with the goroutine, and its signals with it.
	runtime.LockOSThread()
	_ = os.WriteFile("/proc/thread-self/comm", fmt.Appendf(nil, "ebb-vcpu-%d", c.id), 0) // for top and perf
	c.thread.Store(int32(unix.Gettid()))
	for alive := c.gate.pass(c); alive; {
		err := c.kvm.Run()
		switch {
		case err == nil:
			c.exit()
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			// Whatever the guest was doing is complete now: a port or memory access
			// finishes when KVM_RUN is entered, even with immediate exit.
			alive = c.gate.pass(c)
		default:
			c.ended(0, fmt.Errorf("vCPU %d: KVM_RUN: %w", c.id, err))
			alive = c.gate.pass(c)
		}
	}
}

// kick makes a vCPU come to the gate: now, if it is in the guest, else before it
// enters again. Called with the gate's lock held.
func (c *vcpu) kick() {
	c.kvm.SetImmediateExit(true)
	if t := c.thread.Load(); t != 0 {
		// The Go runtime ignores a SIGURG it did not send. ESRCH: the thread has ended.
		_ = unix.Tgkill(os.Getpid(), int(t), unix.SIGURG)
	}
}

// exit handles what the guest left for.
func (c *vcpu) exit() {
	switch reason := c.kvm.ExitReason(); reason {
	case kvm.ExitIO:
		io := c.kvm.IO()
		for p := io.Data; len(p) >= io.Size && io.Size > 0; p = p[io.Size:] {
			if io.Write {
				c.ports.Write(uint64(io.Port), p[:io.Size])
			} else {
				c.ports.Read(uint64(io.Port), p[:io.Size])
			}
		}
	case kvm.ExitMMIO:
		if m := c.kvm.MMIO(); m.Write {
			c.mmio.Write(m.Addr, m.Data)
		} else {
			c.mmio.Read(m.Addr, m.Data)
		}
	case kvm.ExitIntr, kvm.ExitIRQWindowOpen:
	case kvm.ExitShutdown: // which resets a PC
		c.log.Warn("the guest had a triple fault", "vcpu", c.id)
		c.ended(Reset, nil)
	case kvm.ExitSystemEvent:
		switch typ, _ := c.kvm.SystemEvent(); typ {
		case kvm.SystemEventShutdown:
			c.ended(PoweredOff, nil)
		case kvm.SystemEventReset:
			c.ended(Reset, nil)
		default:
			c.ended(Panicked, nil)
		}
	default:
		c.ended(0, c.failure(reason))
	}
}

// failure describes an exit that ebb can't go on from.
func (c *vcpu) failure(reason kvm.ExitReason) error {
	where := ""
	if r, err := c.kvm.GetRegs(); err == nil {
		where = fmt.Sprintf(" at rip %#x", r.RIP)
	}
	switch reason {
	case kvm.ExitInternalError:
		sub, data := c.kvm.InternalError()
		err := fmt.Errorf("vCPU %d: KVM could not run the guest's instruction%s (internal error %d, data %#x)", c.id, where, sub, data)
		if sub == kvm.InternalErrorEmulation {
			err = fmt.Errorf("%w: `ebb check` tells what this host's KVM can run", err)
		}
		return err
	case kvm.ExitFailEntry:
		why, cpu := c.kvm.FailEntry()
		return fmt.Errorf("vCPU %d: the processor refused to enter the guest%s (hardware reason %#x on CPU %d)", c.id, where, why, cpu)
	default:
		return fmt.Errorf("vCPU %d: unexpected exit%s: %v", c.id, where, reason)
	}
}
