package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/plain"
)

// save returns the state of a paused guest as it travels.
func save(t testing.TB, h *hardware) []byte {
	t.Helper()
	s, err := h.saveKVM()
	if err != nil {
		t.Fatal(err)
	}
	return plain.Marshal(s)
}

func decode(t testing.TB, state []byte) (s kvmState) {
	t.Helper()
	if err := plain.Unmarshal(state, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// build makes new hardware for the guest of another machine, with its memory.
func (r *rig) build(cfg Config) *rig {
	r.Helper()
	n := prepare(r.TB, cfg, spin)
	n.cpuids = r.hw.cpuids
	hw, err := newHardware(n.Machine)
	if err != nil {
		r.Fatal(err)
	}
	for i, region := range r.hw.ram.Regions() {
		copy(hw.ram.Regions()[i].Bytes, region.Bytes)
	}
	n.hw, n.held[byUser] = hw, ""
	written := hw.start(context.Background(), &n.Machine.console, byUser)
	go func() { // what Run does
		defer close(n.done)
		<-hw.over
		n.err = hw.close()
		<-written
	}()
	r.Cleanup(n.finish)
	return n
}

// load gives the new hardware a state.
func (r *rig) load(state []byte) kvmLoad {
	r.Helper()
	l, err := r.hw.loadKVM(decode(r, state), noDevices)
	if err != nil {
		r.Fatal(err)
	}
	if len(l.Refused) != 0 {
		r.Errorf("refused: %q", l.Refused)
	}
	if l.Backwards != 0 || l.Elapsed <= 0 || l.Elapsed > hung {
		r.Errorf("the clocks were advanced by %v (backwards %v)", l.Elapsed, l.Backwards)
	}
	return l
}

// move takes a running guest to new hardware, and returns it paused there.
func (r *rig) move(cfg Config) *rig {
	r.Helper()
	r.pause()
	state := save(r, r.hw)
	n := r.build(cfg)
	n.load(state)
	return n
}

// same compares two states, byte by byte.
func same(t testing.TB, what string, a, b any) {
	t.Helper()
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			from := max(0, i-200)
			t.Errorf("%s changes ...%s\nto ...%s", what, x[from:min(i+100, len(x))], y[from:min(i+100, len(y))])
			return
		}
	}
	if len(x) != len(y) {
		t.Errorf("%s makes %d bytes of %d", what, len(y), len(x))
	}
}

// withoutClocks blanks what goes on while a guest stands still.
func withoutClocks(t testing.TB, state []byte) kvmState {
	s := decode(t, state)
	s.stopClocks()
	return s
}

func (s *kvmState) stopClocks() {
	for i := range s.Controllers.PIT.Channels {
		s.Controllers.PIT.Channels[i].CountLoadTime = 0
	}
	s.Clocks.Clock, s.Clocks.Realtime = 0, 0
	for i := range s.Clocks.CPUs {
		s.Clocks.CPUs[i].TSC = 0
	}
}

func TestSaveLoadSave(t *testing.T) {
	r := start(t, Config{CPUs: 2}, watchClocks)
	r.moves(counterAddr, 0)
	r.pause()
	first := save(t, r.hw)
	// What the guest has no occasion to change.
	s := decode(t, first)
	s.CPUs[0].Regs.RBP, s.CPUs[0].Debug.DB[1] = 0xfedcba9876543210, 0x4321
	s.CPUs[0].Events.NMI.Masked = 1
	s.Clocks.CPUs[1].TSC += 12345
	for _, set := range []kvm.MSREntry{{Index: kvm.MSRLStar, Data: 0xffffffff81000000}, {Index: kvm.MSRTSCAux, Data: 7},
		{Index: 0x201, Data: 0xc0000800}, {Index: 0x26f, Data: 0x0606060606060606}, {Index: 0x2ff, Data: 0xc06}} { // MTRRs
		i := slices.IndexFunc(s.CPUs[1].MSRs, func(m kvm.MSREntry) bool { return m.Index == set.Index })
		if i < 0 {
			t.Fatalf("MSR %#x is not in the state", set.Index)
		}
		s.CPUs[1].MSRs[i] = set
	}
	const picMask, redirect = 2, 24 // struct kvm_pic_state, kvm_ioapic_state
	s.Controllers.Chips[0][picMask], s.Controllers.Chips[1][picMask] = 0xfb, 0xff
	s.Controllers.Chips[2][redirect+8*4] = 0x34 // vector of pin 4, masked
	s.Controllers.PIT.Channels[2].Count = 1234
	first = plain.Marshal(s)
	n := r.build(Config{CPUs: 2})
	n.load(first)
	second := save(t, n.hw)
	same(t, "loading", withoutClocks(t, first), withoutClocks(t, second))
	// And the same guest saved twice gives the same bytes.
	same(t, "saving", withoutClocks(t, second), withoutClocks(t, save(t, n.hw)))
	from, to := decode(t, first).Clocks, decode(t, second).Clocks
	if from.CPUs[1].TSC-from.CPUs[0].TSC != to.CPUs[1].TSC-to.CPUs[0].TSC {
		t.Errorf("TSCs %+v apart, then %+v", from.CPUs, to.CPUs)
	}
}

func TestRegistersMove(t *testing.T) {
	r := start(t, Config{}, watchClocks)
	for range 3 {
		r.moves(counterAddr, 0)
		r.pause()
		before := r.number(counterAddr)
		n := r.move(Config{})
		n.resume()
		n.moves(counterAddr, before)
		n.pause()
		regs, err := n.hw.gate.cpus[0].kvm.GetRegs()
		if err != nil {
			t.Fatal(err)
		}
		count, xmm := n.number(counterAddr), n.number(xmmAddr)
		if count <= before || regs.R15 < count || regs.R15 > count+1 || xmm < count || xmm > count+1 {
			t.Errorf("it counted to %d; then R15 %d, in memory %d, by XMM2 %d", before, regs.R15, count, xmm)
		}
		n.resume()
		r = n
	}
}

func TestPendingInterruptMoves(t *testing.T) {
	r := start(t, Config{}, interruptItself)
	r.moves(counterAddr, 0)
	n := r.move(Config{})
	lapic, err := n.hw.gate.cpus[0].kvm.GetLAPIC()
	if err != nil {
		t.Fatal(err)
	}
	if !lapic.Requested(0x40) {
		t.Error("the interrupt is not requested")
	}
	n.takeInterrupts(0x40)
	n.resume()
	n.until("the interrupt", func() bool { return n.number(handledAddr) != 0 })
	count := n.number(counterAddr)
	n.moves(counterAddr, count)
	if got := n.number(handledAddr); got != 1 {
		t.Errorf("the interrupt came %d times", got)
	}
}

// takeInterrupts lets interruptItself go on, with its handler for some vectors.
func (r *rig) takeInterrupts(vectors ...uint64) {
	for _, v := range vectors {
		gate := r.hw.ram.Bytes(idtAddr+16*v, 16)
		binary.LittleEndian.PutUint64(gate, interruptHandler&0xffff|0x10<<16|0x8e00<<32|interruptHandler>>16<<48)
	}
	r.hw.ram.Bytes(goAddr, 1)[0] = 1
}

// A deadline on the TSC is kept if it is to come, and met if it went by meanwhile.
func TestDeadlineMoves(t *testing.T) {
	r := start(t, Config{}, interruptItself)
	r.moves(counterAddr, 0)
	r.pause()
	s := decode(t, save(t, r.hw))
	const lvtTimer, deadlineMode = 0x320, 1 << 18
	binary.LittleEndian.PutUint32(s.CPUs[0].LAPIC[lvtTimer:], deadlineMode|0x42)
	i := slices.IndexFunc(s.Clocks.CPUs[0].MSRs, func(m kvm.MSREntry) bool { return m.Index == kvm.MSRTSCDeadline })
	deadline := &s.Clocks.CPUs[0].MSRs[i].Data

	*deadline = s.Clocks.CPUs[0].TSC + 3600*uint64(r.hw.traits.khz)*1000 // an hour
	state := plain.Marshal(s)
	n := r.build(Config{})
	n.load(state)
	if got := decode(t, save(t, n.hw)).Clocks.CPUs[0].MSRs[i].Data; got != *deadline {
		t.Errorf("deadline %d, want %d", got, *deadline)
	}
	n.takeInterrupts(0x40, 0x42)
	n.resume()
	n.until("the interrupt", func() bool { return n.number(handledAddr) == 1 })
	n.moves(counterAddr, n.number(counterAddr))
	if got := n.number(handledAddr); got != 1 {
		t.Errorf("%d interrupts, and the deadline is an hour away", got)
	}

	*deadline = s.Clocks.CPUs[0].TSC + 1
	state = plain.Marshal(s)
	n = r.build(Config{})
	n.load(state)
	n.takeInterrupts(0x40, 0x42)
	n.resume()
	n.until("the interrupt and the deadline", func() bool { return n.number(handledAddr) == 2 })
}

// The state of a guest's own guests is not saved, and it is said.
func TestNestedIsRefused(t *testing.T) {
	r := start(t, Config{}, count)
	r.moves(counterAddr, 0)
	r.pause()
	c := r.hw.gate.cpus[0].kvm
	sregs, err := c.GetSregs()
	if err != nil {
		t.Fatal(err)
	}
	sregs.EFER |= 1 << 12
	if err := c.SetSregs(sregs); err != nil {
		t.Skip("guests have no SVM here:", err) // on Intel, or with nested=0; in the lab they have
	}
	if _, err := r.hw.saveKVM(); !errors.Is(err, errNested) {
		t.Errorf("%v, want %v", err, errNested)
	}
}

func TestCPUsThatWaitMove(t *testing.T) {
	r := start(t, Config{CPUs: 4}, startSome, haltingAP)
	r.moves(counterAddr, 0)
	r.until("vCPU 1 to halt", func() bool { return uint32(r.number(apCounters)) == 1 })
	n := r.move(Config{CPUs: 4})
	want := []kvm.MPState{kvm.MPStateRunnable, kvm.MPStateHalted, kvm.MPStateInitReceived, kvm.MPStateUninitialized}
	for i, c := range n.hw.gate.cpus {
		if got, err := c.kvm.GetMPState(); got != want[i] || err != nil {
			t.Errorf("vCPU %d is %v (%v), want %v", i, got, err, want[i])
		}
	}
	if n.number(apCounters+8) != 0 {
		t.Error("a second vCPU runs")
	}
	n.hw.ram.Bytes(0x8, 4)[1] = 0x81 // real mode's vector 2, the NMI: 0:0x8100
	n.hw.ram.Bytes(0x8100, 1)[0] = 0xcf
	n.hw.ram.Bytes(goAddr, 1)[0] = 1
	n.resume()
	n.until("vCPU 1 to wake, and vCPU 2 to start", func() bool {
		return uint32(n.number(apCounters)) == 2 && uint32(n.number(apCounters+8)) == 1
	})
}

// A guest that is moved between a port access and its completion neither loses
// nor repeats it.
func TestMoveLosesNoPortAccess(t *testing.T) {
	code := []byte{
		0xbb, 0x00, 0x00, 0x00, 0x00, // mov ebx, 0
		0x66, 0xba, 0xf8, 0x03, // again: mov dx, 0x3f8
		0x88, 0xd8, // mov al, bl
		0xee,       // out dx, al
		0xff, 0xc3, // inc ebx
		0xeb, 0xf5, // jmp again
	}
	r := start(t, Config{}, code)
	n := 0
	for range 20 {
		r.writes(1)
		next := r.move(Config{})
		next.resume()
		r.Stop()
		r.wait() // all it wrote has come out
		for _, c := range []byte(r.console.String()) {
			if c != byte(n) {
				t.Fatalf("byte %d is %d, want %d", n, c, byte(n))
			}
			n++
		}
		r = next
	}
}

// A state is another host's word: whatever it says, loading it ends, with an
// error or without.
func TestLoadGarbage(t *testing.T) {
	r := start(t, Config{CPUs: 2}, watchClocks)
	r.moves(counterAddr, 0)
	r.pause()
	good := save(t, r.hw)
	n := r.build(Config{CPUs: 2})
	for name, c := range map[string]struct {
		spoil func(*kvmState)
		says  string
	}{
		"no vCPUs":       {func(s *kvmState) { s.CPUs = nil }, "0 vCPUs"},
		"more vCPUs":     {func(s *kvmState) { s.CPUs = append(s.CPUs, s.CPUs...) }, "4 vCPUs"},
		"no LAPIC":       {func(s *kvmState) { s.CPUs[0].LAPIC = nil }, "local APIC of 0 bytes"},
		"long LAPIC":     {func(s *kvmState) { s.CPUs[1].LAPIC = make([]byte, 1025) }, "loading vCPU 1: a local APIC of 1025 bytes"},
		"no XSAVE":       {func(s *kvmState) { s.CPUs[0].XSAVE = nil }, "XSAVE area of 0 bytes"},
		"long XSAVE":     {func(s *kvmState) { s.CPUs[0].XSAVE = make([]byte, 1<<20) }, "XSAVE area of 1048576 bytes"},
		"bad XSAVE":      {func(s *kvmState) { s.CPUs[0].XSAVE = bytes.Repeat([]byte{0xff}, 4096) }, "KVM_SET_XSAVE"},
		"bad sregs":      {func(s *kvmState) { s.CPUs[0].Sregs.CR4 = 0 }, "KVM_SET_SREGS"},
		"bad MP state":   {func(s *kvmState) { s.CPUs[0].MPState = 77 }, "KVM_SET_MP_STATE"},
		"bad events":     {func(s *kvmState) { s.CPUs[0].Events.Flags = 1 << 30 }, "KVM_SET_VCPU_EVENTS"},
		"no TSC":         {func(s *kvmState) { s.CPUs[0].TSCKHz = 0 }, "a TSC of 0 kHz"},
		"negative TSC":   {func(s *kvmState) { s.CPUs[0].TSCKHz = -1 << 63 }, "a TSC of -9223372036854775808 kHz"},
		"other TSC":      {func(s *kvmState) { s.CPUs[0].TSCKHz *= 2 }, "can't scale it"},
		"no controllers": {func(s *kvmState) { s.Controllers.Chips = nil }, "0 interrupt controllers"},
		"short I/O APIC": {func(s *kvmState) { s.Controllers.Chips[2] = nil }, "interrupt controller 2 has 0 bytes"},
		"long PIC":       {func(s *kvmState) { s.Controllers.Chips[0] = make([]byte, 513) }, "interrupt controller 0 has 513 bytes"},
		"no clocks":      {func(s *kvmState) { s.Clocks.CPUs = nil }, "clocks for 0 vCPUs"},
	} {
		t.Run(name, func(t *testing.T) {
			s := decode(t, good)
			c.spoil(&s)
			if _, err := n.hw.loadKVM(s, noDevices); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want an error with %q", err, c.says)
			}
		})
	}
	s := decode(t, good)
	s.CPUs[0].MSRs = append(s.CPUs[0].MSRs, kvm.MSREntry{Index: 0xdeadbeef, Data: 1}, kvm.MSREntry{Index: kvm.MSRAPICBase, Data: 0xfee00900})
	i := slices.IndexFunc(s.CPUs[1].MSRs, func(m kvm.MSREntry) bool { return m.Index == kvm.MSRLStar })
	s.CPUs[1].MSRs[i].Data = 1 << 60 // not canonical
	want := []string{"vCPU 0: KVM refuses MSR 0xdeadbeef = 0x1", "vCPU 0: KVM refuses MSR 0x1b = 0xfee00900", "vCPU 1: KVM refuses MSR 0xc0000082 = 0x1000000000000000"}
	if l, err := n.hw.loadKVM(s, noDevices); err != nil || !slices.Equal(l.Refused, want) {
		t.Errorf("refused %q (%v), want %q", l.Refused, err, want)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		s := decode(t, good)
		for range 1 + rnd.IntN(4) {
			spoil(rnd, reflect.ValueOf(&s).Elem())
		}
		_, _ = n.hw.loadKVM(s, noDevices)
	}
	n.load(good) // and a good one is as good as ever
}

// spoil changes a random value within v.
func spoil(rnd *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if f := v.Field(rnd.IntN(v.NumField())); f.CanSet() {
			spoil(rnd, f)
		}
	case reflect.Slice:
		switch n := rnd.IntN(20); {
		case n == 0:
			v.SetZero()
		case n == 1:
			v.Set(reflect.AppendSlice(v, v))
		case v.Len() > 0:
			spoil(rnd, v.Index(rnd.IntN(v.Len())))
		}
	case reflect.Array:
		spoil(rnd, v.Index(rnd.IntN(v.Len())))
	default:
		n := rnd.Uint64() >> rnd.IntN(64)
		if v.CanUint() {
			v.SetUint(n)
		} else {
			v.SetInt(int64(n))
		}
	}
}

func TestTraits(t *testing.T) {
	r := start(t, Config{CPUs: 2}, count)
	r.moves(counterAddr, 0)
	r.pause()
	guest, err := r.hw.cpuTraits()
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostTraits(r.kvm)
	if err != nil {
		t.Fatal(err)
	}
	if err := compatible(guest, host); err != nil {
		t.Errorf("a guest can't stay where it is: %v", err)
	}
}

// BenchmarkSaveKVM measures what of a blackout is KVM's, with 2 vCPUs.
func BenchmarkSaveKVM(b *testing.B) {
	r := start(b, Config{CPUs: 2}, watchClocks)
	r.moves(counterAddr, 0)
	r.pause()
	n := r.build(Config{CPUs: 2})
	var saved, loaded time.Duration
	for b.Loop() {
		from := time.Now()
		s, err := r.hw.saveKVM()
		saved += time.Since(from)
		if err != nil {
			b.Fatal(err)
		}
		from = time.Now()
		_, err = n.hw.loadKVM(s, noDevices)
		loaded += time.Since(from)
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(saved.Microseconds())/float64(b.N), "save-µs")
	b.ReportMetric(float64(loaded.Microseconds())/float64(b.N), "load-µs")
	b.ReportMetric(float64(len(save(b, r.hw))), "bytes")
}

func noDevices() error { return nil }
