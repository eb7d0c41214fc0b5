package machine

import (
	"testing"

	"github.com/ebb-vmm/ebb/kvm"
)

// A guest of an emulated processor ends its interrupts with exits; any other may be told of the quicker way.
func TestInterruptsEndWithExitsWhereEmulated(t *testing.T) {
	r := start(t, Config{CPUs: 2}, count)
	r.moves(counterAddr, 0)
	supported, err := r.kvm.SupportedCPUID()
	if err != nil {
		t.Fatal(err)
	}
	want := pvEOI(supported) && !emulated()
	for id, entries := range r.hw.cpuids {
		if got := pvEOI(entries); got != want {
			t.Errorf("vCPU %d: PV EOI %v, want %v", id, got, want)
		}
	}
	if !pvEOI([]kvm.CPUIDEntry{{Function: 0x40000001, EAX: 1<<6 | 1}}) {
		t.Error("PV EOI isn't found")
	}
}

func pvEOI(entries []kvm.CPUIDEntry) bool {
	for _, e := range entries {
		if e.Function == 0x40000001 {
			return e.EAX&(1<<6) != 0
		}
	}
	return false
}
