package drain

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/aio"
)

const ms = time.Millisecond

// script is a controller with disks whose samples a test writes.
type script struct {
	*Controller
	t       *testing.T
	now     time.Duration
	samples []Sample
	windows []int
}

func newScript(t *testing.T, policy Policy, disks ...string) *script {
	s := &script{Controller: New(Config{Policy: policy, Budget: 150 * ms, Disks: disks}), t: t, samples: make([]Sample, len(disks))}
	s.windows = s.Step(0, s.samples)
	return s
}

// pass lets time pass in steps of 10 ms. Each disk completes requests and has a grace period of
// its length in each, if it has a length; with a long operation, if it has one in flight.
func (s *script) pass(d time.Duration, lengths ...time.Duration) {
	for end := s.now + d; s.now < end; {
		s.now += 10 * ms
		for i, length := range lengths {
			d := &s.samples[i]
			d.Window = s.windows[i]
			if d.Ended = nil; length > 0 {
				d.Completed += 10
				d.Ended = []aio.GracePeriod{{Length: length, InFlight: d.InFlight, Long: d.Long > 0}}
			}
		}
		s.windows = slices.Clone(s.Step(s.now, s.samples))
	}
}

func (s *script) expect(state State, windows ...int) {
	s.t.Helper()
	if s.State() != state || !slices.Equal(s.windows, windows) {
		s.t.Errorf("at %v: %v, windows %v; should be %v, %v", s.now, s.State(), s.windows, state, windows)
	}
}

// Where no drain would have taken too long, the window is what was in flight, even if a grace period had fewer to wait for, and
// as long: that is no sign of a disk that does one after the other.
func TestFirstWindowIsWhatFit(t *testing.T) {
	s := newScript(t, Adaptive, "vda")
	s.samples[0].InFlight = 64
	s.pass(50*ms, 100*ms)
	s.samples[0].InFlight = 16
	s.pass(20*ms, 100*ms)
	s.Ebb()
	s.samples[0].InFlight = 64
	s.pass(10*ms, 100*ms)
	s.expect(Ebbing, 64)
}

// The window is what would have taken 0.6 of the budget: 64 · 0.6 · 150 ms / 320 ms.
func TestFirstWindow(t *testing.T) {
	s := newScript(t, Adaptive, "vda")
	s.samples[0].InFlight = 64
	s.pass(100*ms, 320*ms)
	s.expect(Open, Unlimited)
	s.Ebb()
	s.pass(10*ms, 320*ms)
	s.expect(Ebbing, 18)
	s.pass(100*ms, 320*ms) // those that began with 64 in flight say the same again
	s.expect(Ebbing, 18)
	if s.Ready() {
		t.Error("ready with 64 in flight")
	}
	s.samples[0].InFlight = 18
	s.pass(100*ms, 90*ms)
	if s.expect(Ebbing, 18); !s.Ready() {
		t.Error("not ready")
	}
}

// A disk that was idle begins with a small window, which grows within a few grace periods.
func TestIdleDisk(t *testing.T) {
	s := newScript(t, Adaptive, "vda")
	s.pass(100*ms, 0)
	s.Ebb()
	s.pass(100*ms, 0)
	if s.expect(Ebbing, firstWindow); !s.Ready() {
		t.Error("an idle disk isn't ready")
	}
	for _, w := range []int{32, 128, 512} {
		s.samples[0].InFlight = s.windows[0]
		s.pass(10*ms, 5*ms)
		s.expect(Ebbing, w)
	}
}

// Each disk closes when it is expected to finish with the others.
func TestStaggeredHold(t *testing.T) {
	s := newScript(t, Serial, "slow", "fast", "idle")
	s.samples[0].InFlight, s.samples[1].InFlight = 1, 1
	s.Ebb()
	s.pass(100*ms, 90*ms, 10*ms, 0)
	if !s.Ready() || s.Expect() != 90*ms {
		t.Fatalf("ready %v, expecting %v", s.Ready(), s.Expect())
	}
	s.windows = slices.Clone(s.Hold())
	s.expect(Holding, 0, 1, 0)
	s.pass(70*ms, 90*ms, 10*ms, 0)
	s.expect(Holding, 0, 1, 0)
	s.pass(10*ms, 90*ms, 10*ms, 0)
	s.expect(Holding, 0, 0, 0)
	s.samples[0].InFlight, s.samples[1].InFlight = 0, 0
	s.samples[1].Window = 1 // its window is not in force yet
	s.windows = slices.Clone(s.Step(s.now, s.samples))
	s.expect(Holding, 0, 0, 0)
	s.pass(10*ms, 0, 0, 0)
	s.expect(Drained, 0, 0, 0)
	s.windows = s.Open()
	s.expect(Open, Unlimited, Unlimited, Unlimited)
}

// A drain that takes longer than the budget is given up with open windows, and tried again later and later.
func TestBackOff(t *testing.T) {
	s := newScript(t, Serial, "vda", "vdb")
	s.samples[0].InFlight, s.samples[1].InFlight = 1, 1
	s.Ebb()
	for i, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		s.pass(100*ms, 20*ms, 20*ms)
		if !s.Ready() {
			t.Fatal("not ready")
		}
		s.windows = slices.Clone(s.Hold())
		s.pass(150*ms, 20*ms, 20*ms)
		s.expect(Holding, 0, 0)
		s.pass(10*ms, 20*ms, 20*ms)
		s.expect(BackingOff, Unlimited, Unlimited)
		if s.Missed() != i+1 || s.Ready() {
			t.Errorf("missed %d, ready %v", s.Missed(), s.Ready())
		}
		s.pass(wait-10*ms, 20*ms, 20*ms)
		s.expect(BackingOff, Unlimited, Unlimited)
		s.pass(10*ms, 20*ms, 20*ms)
		s.expect(Ebbing, 1, 1)
	}
}

// A long flush now and then doesn't make the window smaller, for admission doesn't close while it is in flight. Where there
// nearly always is one, it does.
func TestWindowWithFlushes(t *testing.T) {
	s := newScript(t, Adaptive, "vda")
	s.samples[0].InFlight = 64
	s.pass(1000*ms, 20*ms)
	s.Ebb()
	for range 5 {
		s.samples[0].Long = 1
		s.pass(250*ms, 250*ms)
		s.samples[0].Long = 0
		s.pass(750*ms, 20*ms)
		s.expect(Ebbing, 288) // 64 · 0.6 · 150 ms / 20 ms
	}
	s.samples[0].Long = 1
	s.pass(2000*ms, 250*ms)
	s.expect(Ebbing, 23)
}

// A long flush keeps a disk from being ready. It closes in the first moment without one, while others have time: else it may flush
// again before its time has come.
func TestFlush(t *testing.T) {
	s := newScript(t, Serial, "vda", "vdb")
	s.samples[0].InFlight, s.samples[1].InFlight = 1, 1
	s.Ebb()
	s.pass(100*ms, 100*ms, 20*ms)
	s.samples[1].Ended = []aio.GracePeriod{{Length: 300 * ms, InFlight: 1, Long: true}}
	s.Step(s.now, s.samples)
	s.samples[1].Long = 1
	s.pass(10*ms, 100*ms, 20*ms)
	if s.Ready() {
		t.Error("ready with a flush in flight")
	}
	s.samples[1].Long = 0
	s.pass(10*ms, 100*ms, 20*ms)
	s.windows = slices.Clone(s.Hold())
	s.expect(Holding, 0, 0)
}

// A flush that begins before the disk's time has come, and turns out to be long, calls the drain off. Others have closed for nothing
// then, so the next try waits.
func TestLateFlush(t *testing.T) {
	s := newScript(t, Serial, "vda", "vdb")
	s.samples[0].InFlight, s.samples[1].InFlight = 1, 1
	s.Ebb()
	s.pass(100*ms, 100*ms, 20*ms)
	s.windows = slices.Clone(s.Hold())
	s.expect(Holding, 0, 1)
	s.samples[1].Long = 1
	s.pass(60*ms, 100*ms, 20*ms)
	s.samples[1].Ended = []aio.GracePeriod{{Length: 300 * ms, InFlight: 1, Long: true}}
	s.windows = slices.Clone(s.Step(s.now, s.samples))
	s.pass(80*ms, 100*ms, 20*ms)
	if s.expect(BackingOff, Unlimited, Unlimited); s.Missed() != 1 {
		t.Errorf("missed %d", s.Missed())
	}
}

// What a slow disk would need is said while it has something to do, and a while longer.
func TestVerdictExpires(t *testing.T) {
	s := newScript(t, Serial, "vda")
	s.samples[0].InFlight = 1
	s.Ebb()
	s.pass(2000*ms, 250*ms)
	if err := s.Verdict(); err == nil {
		t.Error("nothing is said of a disk that is too slow")
	}
	s.samples[0].InFlight = 0
	s.pass(noGap+10*ms, 0)
	if err := s.Verdict(); err != nil || !s.Ready() {
		t.Errorf("of a disk that has nothing to do: %v, ready %v", err, s.Ready())
	}
}

// While a disk hangs all windows are open, and it is named.
func TestHang(t *testing.T) {
	s := newScript(t, Serial, "vda", "vdb")
	s.samples[0].InFlight, s.samples[1].InFlight = 1, 1
	s.Ebb()
	s.pass(100*ms, 5*ms, 5*ms)
	s.expect(Ebbing, 1, 1)
	s.pass(1010*ms, 5*ms, 0)
	s.expect(Ebbing, Unlimited, Unlimited)
	var short *Shortfall
	if err := s.Verdict(); !errors.As(err, &short) || short.Disk != "vdb" || short.Hangs < time.Second {
		t.Errorf("%v", err)
	}
	s.pass(10*ms, 5*ms, 5*ms)
	s.expect(Ebbing, 1, 1)
}

// A disk that takes too long for one request is named with what it needs.
func TestVerdict(t *testing.T) {
	s := newScript(t, Adaptive, "vda", "vdb")
	s.samples[0].InFlight, s.samples[1].InFlight = 1, 1
	s.Ebb()
	s.pass(500*ms, 5*ms, 195*ms)
	const want = "disk vdb needs 195 ms for one request; a drain budget of 220 ms or more required"
	if err := s.Verdict(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
}

func TestParsePolicy(t *testing.T) {
	for p := Adaptive; p <= Off; p++ {
		if got, err := ParsePolicy(p.String()); got != p || err != nil {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("fast"); err == nil {
		t.Error("fast is a policy")
	}
}

// A disk that always has a flush in flight is ready as long as grace periods with one fit.
func TestAlwaysAFlush(t *testing.T) {
	for length, ready := range map[time.Duration]bool{5 * ms: true, 200 * ms: false} {
		s := newScript(t, Adaptive, "vda")
		s.samples[0].InFlight, s.samples[0].Long = 4, 1
		s.pass(time.Second, length)
		s.Ebb()
		s.pass(time.Second, length)
		if s.Ready() != ready {
			t.Errorf("grace periods of %v: ready is %v", length, s.Ready())
		}
	}
}
