package kvm

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	vm := newVM(t)
	mask := uint32(needCap(t, vm, CapAdjustClock))
	const slack = 10 * time.Second
	near := func(got uint64, want time.Duration) bool {
		return time.Duration(got) >= want && time.Duration(got) < want+slack
	}

	check(t, vm.SetClock(Clock{Clock: uint64(time.Hour)}))
	c := must[Clock](t)(vm.GetClock())
	if !near(c.Clock, time.Hour) {
		t.Errorf("clock %v, set to 1h", time.Duration(c.Clock))
	}
	time.Sleep(time.Millisecond)
	if d := must[Clock](t)(vm.GetClock()).Clock - c.Clock; d < uint64(time.Millisecond) || d > uint64(slack) {
		t.Errorf("the clock advanced by %v in a millisecond", time.Duration(d))
	}

	if mask&ClockRealtime == 0 {
		t.Skipf("this KVM has %v only with %#x", CapAdjustClock, mask)
	}
	before := uint64(time.Now().Add(-time.Minute).UnixNano())
	check(t, vm.SetClock(Clock{Clock: uint64(time.Hour), Flags: ClockRealtime, Realtime: before}))
	c = must[Clock](t)(vm.GetClock())
	if !near(c.Clock, time.Hour+time.Minute) {
		t.Errorf("clock %v, set to 1h a minute ago", time.Duration(c.Clock))
	}
	if c.Flags&ClockRealtime != 0 && time.Since(time.Unix(0, int64(c.Realtime))).Abs() > slack {
		t.Errorf("real time %v", time.Unix(0, int64(c.Realtime)))
	}
	if c.Flags&ClockHostTSC != 0 && c.HostTSC == 0 {
		t.Error("no host TSC")
	}
}
