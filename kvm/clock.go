package kvm

// Flags of Clock. CheckExtension(CapAdjustClock) returns the mask of those the
// kernel knows.
const (
	ClockTSCStable uint32 = 1 << 1 // from GetClock: all vCPUs see the same clock
	ClockRealtime  uint32 = 1 << 2 // Realtime is valid; for SetClock: advance by the time passed since
	ClockHostTSC   uint32 = 1 << 3 // HostTSC is valid
)

// Clock is the kvmclock of a VM (struct kvm_clock_data).
type Clock struct {
	Clock    uint64 // ns, as the guest sees it
	Flags    uint32
	_        uint32
	Realtime uint64 // ns since 1970 on the host's CLOCK_REALTIME, at the same instant
	HostTSC  uint64 // host TSC at the same instant
	_        [4]uint32
}

// GetClock reads the VM's kvmclock, and the host's clocks at the same instant
// where it can (api.rst 4.29).
func (vm *VM) GetClock() (Clock, error) { return ioctlGet[Clock](vm.fd, getClock) }

// SetClock sets the VM's kvmclock (api.rst 4.30). With ClockRealtime the time
// since c.Realtime is added, never subtracted: a guest that moved between hosts sees the time
// that passed. The kernel ignores ClockTSCStable and ClockHostTSC here.
func (vm *VM) SetClock(c Clock) error { return ioctlSet(vm.fd, setClock, c) }
