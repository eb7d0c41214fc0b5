package machine

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/kvm"
)

// tscTolerance is by how much, in ppm, two hosts' TSC frequencies may differ without anybody
// scaling: within it KVM takes a frequency for its host's own (its tsc_tolerance_ppm).
const tscTolerance = 250

// clockState is what the guest's clocks say at one instant, and when that was. Loading it
// advances them by the real time that passed since.
type clockState struct {
	Clock    uint64 // kvmclock, ns
	Realtime int64  // the host's CLOCK_REALTIME, ns since 1970
	CPUs     []cpuClock
}

// cpuClock is the TSC of a vCPU and what hangs on it.
type cpuClock struct {
	TSC  uint64
	MSRs []kvm.MSREntry // clockMSRs but for the TSC
}

// clockLoad tells what loading the clocks did.
type clockLoad struct {
	Elapsed   time.Duration // by which they were advanced until they were set
	Backwards time.Duration // how far this host's clock is behind the saved time; then Elapsed starts at 0
	Refused   []string      // MSRs, as in loadCPUs
}

// instant is one moment on three clocks.
type instant struct {
	clock uint64 // kvmclock, ns
	real  int64  // CLOCK_REALTIME, ns
	tsc   uint64 // of the first vCPU
}

// saveClocks reads the guest's clocks. They go on until the guest is loaded, so it doesn't matter
// how early it is called. Any goroutine may call it. Preconditions: every vCPU is at the gate.
func (h *hardware) saveClocks() (clockState, error) {
	now, err := h.now()
	if err != nil {
		return clockState{}, fmt.Errorf("saving the clocks: %w", err)
	}
	s := clockState{Clock: now.clock, Realtime: now.real, CPUs: make([]cpuClock, len(h.gate.cpus))}
	for i, c := range h.gate.cpus {
		err := h.saveClock(i, now, &s.CPUs[i])
		if err != nil {
			return clockState{}, fmt.Errorf("saving the clock of vCPU %d: %w", c.id, err)
		}
	}
	return s, nil
}

// saveClock reads the TSC that vCPU i had at an instant: as far from the first one's as
// their offsets are, so that vCPUs that agree go on agreeing to the cycle.
func (h *hardware) saveClock(i int, now instant, s *cpuClock) (err error) {
	c := h.gate.cpus[i].kvm
	s.TSC = now.tsc
	if h.traits.tscOffsets {
		first, err := h.gate.cpus[0].kvm.GetTSCOffset()
		if err != nil {
			return err
		}
		own, err := c.GetTSCOffset()
		if err != nil {
			return err
		}
		s.TSC += own - first
	}
	var others []uint32
	for _, index := range h.traits.msrs {
		if isClockMSR(index) && index != kvm.MSRTSC {
			others = append(others, index)
		}
	}
	s.MSRs, err = readMSRs(c, others)
	return err
}

// loadClocks sets the guest's clocks to what they were saved at and the real time since
// (Documentation/virt/kvm/devices/vcpu.rst, 4.1), and tells the guest's watchdogs that
// it stood still. It may be long before the vCPUs run: the clocks go on from here. It
// writes to guest memory (the wall clock), so that must be complete.
//
// Preconditions: loadCPUs was called.
func (h *hardware) loadClocks(s clockState) (clockLoad, error) {
	if len(s.CPUs) != len(h.gate.cpus) {
		return clockLoad{}, fmt.Errorf("the state has clocks for %d vCPUs, this machine %d", len(s.CPUs), len(h.gate.cpus))
	}
	l, err := h.loadTSCs(s)
	if err != nil {
		return l, fmt.Errorf("loading the clocks: %w", err)
	}
	for i, c := range h.gate.cpus {
		refused, err := h.writeMSRs(c.kvm, s.CPUs[i].MSRs)
		if err != nil {
			return l, fmt.Errorf("loading the clock of vCPU %d: %w", c.id, err)
		}
		l.Refused = append(l.Refused, refusals(c.id, refused)...)
		// Linux's watchdogs forgive a gap that its kvmclock says the host made. It hides nothing
		// else: the clocks have the time that passed. EINVAL: the guest uses no kvmclock.
		if err := c.kvm.KVMClockCtrl(); err != nil && !errors.Is(err, unix.EINVAL) {
			return l, fmt.Errorf("loading the clock of vCPU %d: %w", c.id, err)
		}
	}
	return l, nil
}

// loadTSCs sets the kvmclock, then the TSCs by as much as that has advanced.
func (h *hardware) loadTSCs(s clockState) (l clockLoad, err error) {
	khz, err := h.gate.cpus[0].kvm.GetTSCKHz()
	if err != nil {
		return l, err
	}
	if l.Backwards, err = h.loadKVMClock(s); err != nil {
		return l, err
	}
	now, err := h.now()
	if err != nil {
		return l, err
	}
	passed := max(0, int64(now.clock-s.Clock))
	l.Elapsed = time.Duration(passed)
	ahead := cycles(uint64(passed), khz) // of the saved TSCs
	first := s.CPUs[0].TSC + ahead
	var offset uint64 // of the first one now
	if h.traits.tscOffsets {
		if offset, err = h.gate.cpus[0].kvm.GetTSCOffset(); err != nil {
			return l, err
		}
	}
	for i, c := range h.gate.cpus {
		want := s.CPUs[i].TSC + ahead
		if h.traits.tscOffsets {
			err = c.kvm.SetTSCOffset(offset + want - now.tsc)
		} else {
			err = writeTSC(c.kvm, want, i == 0)
		}
		if err != nil {
			return l, err
		}
	}
	set, err := h.now()
	if err != nil {
		return l, err
	}
	if int64(set.tsc-first) < 0 {
		return l, fmt.Errorf("the TSC is %d after it was set to %d: this host's KVM doesn't let a guest have one of its own", set.tsc, first)
	}
	return l, nil
}

// writeTSC sets a vCPU's TSC without KVM_VCPU_TSC_OFFSET. KVM takes a value that is within a second
// of what the last written one has become for an attempt to make vCPUs agree, and keeps the offset
// it had (kvm_synchronize_tsc). That is wanted from the second vCPU on, but a new VM's own TSC, which began at 0,
// must not catch the first one: so that goes by way of a value far away.
func writeTSC(c *kvm.VCPU, tsc uint64, first bool) error {
	const far = 1 << 50
	if first {
		if _, err := c.SetMSRs([]kvm.MSREntry{{Index: kvm.MSRTSC, Data: tsc + far}}); err != nil {
			return err
		}
	}
	_, err := c.SetMSRs([]kvm.MSREntry{{Index: kvm.MSRTSC, Data: tsc}})
	return err
}

// loadKVMClock sets the kvmclock, and returns how far this host's clock is behind the saved time.
func (h *hardware) loadKVMClock(s clockState) (backwards time.Duration, err error) {
	real := time.Now().UnixNano()
	backwards = max(0, time.Duration(s.Realtime-real))
	if h.traits.clockFlags&kvm.ClockRealtime != 0 { // KVM adds what passed, and subtracts nothing
		return backwards, h.vm.SetClock(kvm.Clock{Clock: s.Clock, Flags: kvm.ClockRealtime, Realtime: uint64(s.Realtime)})
	}
	for range 5 { // until nothing came between reading the one clock and setting the other
		now := time.Now()
		if err := h.vm.SetClock(kvm.Clock{Clock: s.Clock + uint64(max(0, now.UnixNano()-s.Realtime))}); err != nil {
			return backwards, err
		}
		if time.Since(now) < 200*time.Microsecond {
			break
		}
	}
	return backwards, nil
}

// now reads the clocks at one instant: exactly where KVM has all three at once, else
// within a few µs, the shortest of some tries.
func (h *hardware) now() (instant, error) {
	c := h.gate.cpus[0].kvm
	khz, err := c.GetTSCKHz()
	if err != nil {
		return instant{}, err
	}
	best, width := instant{}, time.Duration(math.MaxInt64)
	for range 5 {
		before := time.Now()
		clock, err := h.vm.GetClock()
		if err != nil {
			return instant{}, err
		}
		const exact = kvm.ClockRealtime | kvm.ClockHostTSC
		// The guest's TSC is the host's and an offset, unless it is scaled.
		if clock.Flags&h.traits.clockFlags&exact == exact && h.traits.tscOffsets && !apart(khz, h.traits.khz) {
			offset, err := c.GetTSCOffset()
			return instant{clock: clock.Clock, real: int64(clock.Realtime), tsc: clock.HostTSC + offset}, err
		}
		tsc := []kvm.MSREntry{{Index: kvm.MSRTSC}}
		if n, err := c.GetMSRs(tsc); err != nil {
			return instant{}, err
		} else if n == 0 {
			return instant{}, errors.New("KVM doesn't tell the guest's TSC")
		}
		if w := time.Since(before); w < width {
			best, width = instant{clock: clock.Clock, real: before.Add(w / 2).UnixNano(), tsc: tsc[0].Data}, w
		}
	}
	return best, nil
}

// loadTSCKHz makes the TSC of a vCPU run at khz.
func (h *hardware) loadTSCKHz(c *kvm.VCPU, khz int) error {
	own, err := c.GetTSCKHz()
	if err != nil || own == khz {
		return err
	}
	control, err := h.vm.CheckExtension(kvm.CapTSCControl)
	if err != nil {
		return err
	}
	if err := sameTSC(khz, own, control > 0); err != nil {
		return err
	}
	return c.SetTSCKHz(khz)
}

// sameTSC says whether a guest whose TSC runs at guest kHz can run where the host's runs at host.
func sameTSC(guest, host int, scaling bool) error {
	if guest <= 0 || guest > math.MaxInt32 {
		return fmt.Errorf("a TSC of %d kHz", guest)
	}
	if apart(guest, host) && !scaling {
		return fmt.Errorf("the guest's TSC runs at %d kHz, the destination's at %d kHz, and its processor can't scale it", guest, host)
	}
	return nil
}

// apart says whether two frequencies differ by more than tscTolerance.
func apart(a, b int) bool { return max(a-b, b-a)*1_000_000 > b*tscTolerance }

// cycles converts ns to cycles at khz, modulo 2^64.
func cycles(ns uint64, khz int) uint64 {
	const nsPerMs = 1_000_000
	high, low := bits.Mul64(ns, uint64(khz))
	q, _ := bits.Div64(high%nsPerMs, low, nsPerMs)
	return q
}
