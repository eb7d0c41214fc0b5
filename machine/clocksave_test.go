package machine

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/machine/plain"
)

// pvclock is what the guest's kvmclock says of the last TSC that it read, in ns.
func (r *rig) pvclock() float64 {
	page := r.hw.ram.Bytes(pvclockAddr, 32)
	tsc, system := binary.LittleEndian.Uint64(page[8:]), binary.LittleEndian.Uint64(page[16:])
	mul, shift := binary.LittleEndian.Uint32(page[24:]), int8(page[28])
	scale := float64(mul) / (1 << 32)
	for ; shift > 0; shift-- {
		scale *= 2
	}
	for ; shift < 0; shift++ {
		scale /= 2
	}
	return float64(system) + float64(int64(r.number(tscAddr)-tsc))*scale
}

// A guest's clocks show it the real time that it stood still, no less and no more.
func TestClocksAdvance(t *testing.T) {
	r := start(t, Config{CPUs: 2}, watchClocks)
	r.moves(counterAddr, 0)
	khz := float64(r.hw.traits.khz)
	for _, older := range []bool{false, false, true, true} { // the last with a KVM from before Linux 5.16
		if older {
			r.hw.traits.tscOffsets, r.hw.traits.clockFlags = false, 0
		}
		outerFrom, count := time.Now(), r.number(counterAddr)
		r.until("two rounds", func() bool { return r.number(counterAddr) >= count+2 }) // so it has read its TSC since
		r.pause()
		innerFrom := time.Now()
		binary.LittleEndian.PutUint64(r.hw.ram.Bytes(gapAddr, 8), 0)
		before := save(t, r.hw)
		s := decode(t, before)
		s.CPUs[0].Regs.R13 = 0 // its largest gap
		before = plain.Marshal(s)
		kvmclock, tsc := r.pvclock(), r.number(tscAddr)
		n := r.build(Config{CPUs: 2})
		if older {
			n.hw.traits.tscOffsets, n.hw.traits.clockFlags = false, 0
		}
		n.stands(counterAddr) // another machine runs: real time passes
		n.load(before)
		n.stands(counterAddr)
		count = n.number(counterAddr)
		inner := time.Since(innerFrom)
		n.resume()
		n.moves(counterAddr, count)
		n.pause()
		outer := time.Since(outerFrom)
		if back := n.number(backAddr); back != 0 {
			t.Errorf("the TSC went backwards %d times", back)
		}
		gap := time.Duration(float64(n.number(gapAddr)) * 1e6 / khz)
		slack := 5 * time.Millisecond
		if older { // nothing keeps another process from coming between two of its clocks
			slack *= 10
		}
		if gap < inner-slack || gap > outer+slack {
			t.Errorf("the TSC shows a gap of %v; the guest stood still for %v to %v", gap, inner, outer)
		}
		// The kvmclock follows the TSC, except in that KVM may correct it.
		byTSC := time.Duration(float64(n.number(tscAddr)-tsc) * 1e6 / khz)
		if advanced := time.Duration(n.pvclock() - kvmclock); (advanced - byTSC).Abs() > slack {
			t.Errorf("the kvmclock advanced by %v, the TSC by %v", advanced, byTSC)
		}
		n.resume()
		t.Logf("gap %v, between %v and %v", gap, inner, outer)
		r = n
	}
}

// Clocks that seem to have been saved in the future stand still rather than go back.
func TestClocksNeverGoBack(t *testing.T) {
	r := start(t, Config{}, watchClocks)
	r.moves(counterAddr, 0)
	r.pause()
	s := decode(t, save(t, r.hw))
	s.Clocks.Realtime += int64(time.Hour)
	n := r.build(Config{})
	l, err := n.hw.loadKVM(s, noDevices)
	if err != nil {
		t.Fatal(err)
	}
	if l.Backwards < 59*time.Minute || l.Backwards > time.Hour || l.Elapsed > time.Minute {
		t.Errorf("%+v, an hour too early", l)
	}
	count := n.number(counterAddr)
	n.resume()
	n.moves(counterAddr, count)
	if back := n.number(backAddr); back != 0 {
		t.Errorf("the TSC went backwards %d times", back)
	}
}

// Without KVM_VCPU_TSC_OFFSET a TSC near the one that a new VM has anyway is set all the same.
func TestNearTSCIsSet(t *testing.T) {
	r := start(t, Config{CPUs: 2}, watchClocks)
	r.moves(counterAddr, 0)
	r.pause()
	s := decode(t, save(t, r.hw))
	n := r.build(Config{CPUs: 2})
	n.hw.traits.tscOffsets, n.hw.traits.clockFlags = false, 0
	now, err := n.hw.now()
	if err != nil {
		t.Fatal(err)
	}
	near := now.tsc + uint64(n.hw.traits.khz)*900 // 0.9 s ahead of its own
	s.Clocks.Realtime = now.real
	for i := range s.Clocks.CPUs {
		s.Clocks.CPUs[i].TSC = near
	}
	if _, err := n.hw.loadKVM(s, noDevices); err != nil {
		t.Fatal(err)
	}
	var offsets []uint64
	for _, c := range n.hw.gate.cpus {
		offset, err := c.kvm.GetTSCOffset()
		if err != nil {
			t.Skip("no KVM_VCPU_TSC_OFFSET:", err) // before Linux 5.16, and in software KVMs; the lab's has it
		}
		offsets = append(offsets, offset)
	}
	if offsets[0] != offsets[1] {
		t.Errorf("offsets %#x: the vCPUs disagree", offsets)
	}
}
