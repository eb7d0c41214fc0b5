package machine

import (
	"testing"

	"github.com/ebb-vmm/ebb/kvm"
)

func newIRQs(t *testing.T) *interrupts {
	t.Helper()
	needKVM(t)
	s, err := kvm.Open(kvmPath)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := s.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close(); s.Close() })
	if err := vm.CreateIRQChip(); err != nil {
		t.Fatal(err)
	}
	irqs, err := newInterrupts(vm)
	if err != nil {
		t.Fatal(err)
	}
	return irqs
}

// Each vector has a line of its own, above the I/O APIC's pins, and gives it back.
func TestVectors(t *testing.T) {
	irqs := newIRQs(t)
	before := openFiles(t)
	seen := map[uint32]bool{}
	var vectors []*vector
	take := func() *vector {
		v, err := irqs.newVector()
		if err != nil {
			t.Fatal(err)
		}
		return v.(*vector)
	}
	for i := range 100 {
		v := take()
		if seen[v.gsi] || v.gsi < gsiPins {
			t.Errorf("vector %d has line %d", i, v.gsi)
		}
		seen[v.gsi] = true
		vectors = append(vectors, v)
		if err := v.SetRoute(0xfee00000, uint32(i)); err != nil {
			t.Fatal(err)
		}
		v.Signal()
	}
	old := vectors[40].gsi
	if err := vectors[40].Close(); err != nil {
		t.Fatal(err)
	}
	if vectors[40] = take(); vectors[40].gsi != old {
		t.Errorf("the free line is %d, taken was %d", old, vectors[40].gsi)
	}
	if _, routed := irqs.routes[old]; routed {
		t.Error("a new vector has its predecessor's route")
	}
	for _, v := range vectors {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(irqs.routes) != 0 || len(irqs.used) != 0 {
		t.Errorf("%d routes and %d lines are left", len(irqs.routes), len(irqs.used))
	}
	wantFiles(t, before, "after all vectors")
}
