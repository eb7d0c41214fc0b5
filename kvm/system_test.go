package kvm

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	if _, err := Open("/nonexistent/kvm"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent/kvm") {
		t.Errorf("a missing device: %v", err)
	}
	null := must[*System](t)(Open(os.DevNull))
	_, err := null.APIVersion()
	wantErrno(t, err, unix.ENOTTY)
	if !strings.HasPrefix(err.Error(), "KVM_GET_API_VERSION: ") {
		t.Errorf("the error does not name the ioctl: %v", err)
	}
	check(t, null.Close())
	check(t, null.Close())
	_, err = null.APIVersion()
	wantErrno(t, err, unix.EBADF)
}

func TestSystem(t *testing.T) {
	s := openSystem(t)
	if v := must[int](t)(s.APIVersion()); v != StableAPIVersion {
		t.Errorf("API version %d, want %d", v, StableAPIVersion)
	}
	for _, c := range []Cap{ // what every KVM since Linux 5.19 has
		CapIRQChip, CapUserMemory, CapSetTSSAddr, CapExtCPUID, CapNrMemslots, CapMPState, CapUserNMI,
		CapIRQRouting, CapIRQFD, CapPIT2, CapIOEventFD, CapSetIdentityMapAddr, CapAdjustClock,
		CapVCPUEvents, CapDebugRegs, CapXSAVE, CapGetTSCKHz, CapMaxVCPUs, CapKVMClockCtrl,
		CapReadonlyMem, CapCheckExtensionVM, CapIOEventFDAnyLength, CapVCPUAttributes, CapMaxVCPUID,
		CapImmediateExit, CapManualDirtyLogProtect2, CapXSAVE2, CapX86TripleFaultEvent,
	} {
		if must[int](t)(s.CheckExtension(c)) == 0 {
			t.Errorf("no %v", c)
		}
	}
	if n := must[int](t)(s.CheckExtension(0xffff)); n != 0 {
		t.Errorf("capability 0xffff: %d, want 0", n)
	}

	cpuid := must[[]CPUIDEntry](t)(s.SupportedCPUID())
	for _, f := range []uint32{0, 1, 0xd, 0x40000000, 0x80000001} {
		if !slices.ContainsFunc(cpuid, func(e CPUIDEntry) bool { return e.Function == f }) {
			t.Errorf("CPUID lacks leaf %#x", f)
		}
	}
	for _, e := range cpuid {
		if e.Function == 0x40000000 && e.EBX != 0x4b4d564b { // "KVMK"
			t.Errorf("CPUID leaf 0x40000000: %+v", e)
		}
	}

	msrs := must[[]uint32](t)(s.MSRIndexList())
	for _, m := range []uint32{MSRTSC, MSRStar, MSRKVMSystemTimeNew} {
		if !slices.Contains(msrs, m) {
			t.Errorf("the MSR list lacks %#x", m)
		}
	}
}

// TestGrowList: lists longer than the first guess are read whole.
func TestGrowList(t *testing.T) {
	var rooms []int
	list, err := growList(func(room int) ([]int, error) {
		rooms = append(rooms, room)
		if room < 300 {
			return nil, getCPUID2.fail(unix.E2BIG)
		}
		return make([]int, 300), nil
	})
	if err != nil || len(list) != 300 || !slices.Equal(rooms, []int{128, 256, 512}) {
		t.Errorf("%d entries, %v, rooms %v", len(list), err, rooms)
	}
	_, err = growList(func(int) ([]int, error) { return nil, getCPUID2.fail(unix.E2BIG) })
	wantErrno(t, err, unix.E2BIG)
}
