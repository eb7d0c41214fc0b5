package pci_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/virtio/pci"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: error %v, want %q", what, err, want)
	}
}

// A BAR goes where it was, from where the new machine put it.
func TestStateMapsBARs(t *testing.T) {
	h := virtiotest.NewHost(t)
	f := newFunction(h)
	set(f, 0x18, 4, 0xe0100000)
	set(f, 0x04, 2, pci.CommandMemory|pci.CommandBusMaster)
	set(f, 0x3c, 1, 0x42)
	s := f.Save()

	h2 := virtiotest.NewHost(t)
	g := newFunction(h2)
	set(g, 0x18, 4, 0xe0000000)
	set(g, 0x04, 2, pci.CommandMemory)
	g.moved = nil
	if err := g.Load(s); err != nil {
		t.Fatal(err)
	}
	if at := h2.BAR(g, 2); at != 0xe0100000 || !slices.Equal(g.moved, []uint64{0, 0xe0100000}) {
		t.Errorf("BAR at %#x, by %#x", at, g.moved)
	}
	if get(g, 0x3c, 1) != 0x42 || !reflect.DeepEqual(g.Save(), s) {
		t.Error("saved again it is another state")
	}
	// And to nowhere: decoding was off, or the guest was asking for the size.
	set(f, 0x18, 4, 0xffffffff)
	if err := g.Load(f.Save()); err != nil || h2.BAR(g, 2) != 0 {
		t.Errorf("error %v, BAR at %#x while its size is asked for", err, h2.BAR(g, 2))
	}
	h2.RefuseBARs(errors.New("taken"))
	wantError(t, "taken", g.Load(s), "BAR 2 can't be mapped at 0xe0100000")
}

func TestStateOfAnotherFunction(t *testing.T) {
	f := newFunction(virtiotest.NewHost(t))
	s := f.Save()
	for off := range pci.ConfigSize {
		for bit := range 8 {
			data := slices.Clone(s.Data)
			data[off] ^= 1 << bit
			g := newFunction(virtiotest.NewHost(t))
			before := get(g, off, 1)
			set(g, off, 1, ^before)
			writable := (get(g, off, 1)^before)>>bit&1 != 0
			if err := newFunction(virtiotest.NewHost(t)).Load(pci.ConfigState{Data: data}); (err == nil) != writable {
				t.Errorf("bit %d at %#x, writable %v: error %v", bit, off, writable, err)
			}
		}
	}
	for _, n := range []int{0, 255, 257, 4096} {
		wantError(t, "length", f.Load(pci.ConfigState{Data: make([]byte, n)}), "bytes, want 256")
	}
}

// Every vector arrives in the state it was in, and what is pending is delivered when the
// guest allows it, once.
func TestStateOfMSIX(t *testing.T) {
	const n = 4
	r := newMSIX(t, n)
	r.control(msixEnable)
	for i := range n {
		r.entry(i, uint32(100+i), i >= 2)
	}
	r.m.Signal(0)
	r.m.Signal(2) // masked
	r.expect("before", 100, 1, 1<<2)

	move := func(from *msixRig) *msixRig {
		to := newMSIX(t, n)
		c, m := from.c.Save(), from.m.Save()
		if err := errors.Join(to.c.Load(c), to.m.Load(m)); err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(m)
		b, _ := json.Marshal(to.m.Save())
		if string(a) != string(b) || !reflect.DeepEqual(to.c.Save(), c) {
			t.Errorf("saved %s, loaded and saved again %s", a, b)
		}
		return to
	}
	r = move(r)
	r.expect("moved", 100, 0, 1<<2)
	r.m.Signal(1)
	r.expect("open", 101, 1, 1<<2)
	r.m.Signal(3)
	r.expect("masked", 103, 0, 1<<2|1<<3)
	r.entry(2, 102, false)
	r.expect("unmasked", 102, 1, 1<<3)

	r.control(msixEnable | msixMaskAll)
	r.m.Signal(0)
	r = move(r)
	r.expect("function masked", 100, 0, 1<<0|1<<3)
	r.control(msixEnable)
	r.expect("function unmasked", 100, 1, 1<<3)

	r.control(0)
	r = move(r)
	r.m.Signal(0)
	r.expect("off", 100, 0, 0)
}

func TestStateOfMSIXRefused(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*pci.MSIXState)
		want   string
	}{
		"short":   {func(s *pci.MSIXState) { s.Entries = s.Entries[:2] }, "2 vectors, want 3"},
		"address": {func(s *pci.MSIXState) { s.Entries[1].Addr = 2 }, "vector 1"},
		"off":     {func(s *pci.MSIXState) { s.Entries[2].Pending = true }, "vector 2 is pending"},
	} {
		r := newMSIX(t, 3)
		s := r.m.Save()
		c.change(&s)
		wantError(t, what, r.m.Load(s), c.want)
	}
}

// A port is moved while the guest works on its slot: no event is lost, none comes twice.
func TestStateOfARootPort(t *testing.T) {
	r := newPortRig(t)
	move := func() {
		t.Helper()
		s := r.p.Save()
		n := newPortRig(t)
		if err := n.p.Load(s); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(n.p.Save(), s) {
			t.Error("saved again it is another state")
		}
		set(n.p, 0x3c, 1, get(n.p, 0x3c, 1)) // a write that changes nothing
		if n.changes != 0 || n.messages() != 0 {
			t.Errorf("the load told the owner %d times and the guest %d", n.changes, n.messages())
		}
		r = n
	}
	set(r.p, 0x19, 1, 7)
	move()
	if r.p.SecondaryBus() != 7 {
		t.Error("the bus lost its number")
	}
	r.listen()
	r.p.Insert()
	if r.messages() != 1 {
		t.Fatal("no message for the insertion")
	}
	move()
	r.p.PressButton()
	if r.messages() != 0 {
		t.Error("another message while the guest deals with the first")
	}
	r.set(slotStatus, buttonPressed|presenceChanged)
	move()
	r.change(slotControl, powerOff|indicatorOff, indicatorOn)
	if r.changes != 1 || !r.p.Powered() {
		t.Errorf("%d changes, powered %v", r.changes, r.p.Powered())
	}
	r.p.SetLink(true)
	if r.messages() != 1 {
		t.Error("no message for the link")
	}
	move()
	if !r.p.Powered() || r.p.PowerIndicator() != pci.IndicatorOn || !r.p.Listening() {
		t.Error("the slot is off")
	}
	r.set(slotStatus, linkChanged)
	r.p.PressButton()
	if r.messages() != 1 {
		t.Error("no message for the button")
	}

	s := r.p.Save()
	s.Data[r.express+0x16] ^= 1 << 3 // the slot's number
	wantError(t, "another slot", newPortRig(t).p.Load(s), "another one's")
}
