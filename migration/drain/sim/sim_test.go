package sim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
)

const seeds = 40 // the benchmark has more

// What the default promises, on every shape that can be drained: nothing in flight, within the budget, and
// the guest loses less than a tenth in EBB.
func TestAdaptive(t *testing.T) {
	for i := range Shapes {
		shape := &Shapes[i]
		t.Run(shape.Name, func(t *testing.T) {
			t.Parallel()
			var ebb []float64
			holds, within, drained := 0, 0, 0
			for seed := range uint64(seeds) {
				r := Run(shape, drain.Adaptive, nil, seed, nil)
				if r.InFlight != 0 {
					t.Errorf("seed %d: drained with %d in flight", seed, r.InFlight)
				}
				ebb = append(ebb, r.EBB)
				for _, d := range r.Drains {
					if holds++; d <= Budget {
						within++
					}
				}
				if r.Drained {
					drained++
					if r.MaxStall > Budget+handOver+2*tick {
						t.Errorf("seed %d: admission closed for %v", seed, r.MaxStall)
					}
				}
			}
			if slices.Sort(ebb); ebb[len(ebb)/2] < 0.9 {
				t.Errorf("throughput in EBB %.2f", ebb[len(ebb)/2])
			}
			if shape.Can && (within*100 < holds*99 || drained < seeds*95/100) {
				t.Errorf("%d of %d migrations, %d of %d drains within the budget", drained, seeds, within, holds)
			}
			if shape.Name == "freezes" && drained < seeds*3/4 {
				t.Errorf("%d of %d migrations in the end", drained, seeds)
			}
		})
	}
}

// While one disk hangs, all have open windows, and it is named.
func TestHungDisk(t *testing.T) {
	closed := 0
	r := Run(ByName("hangs for good"), drain.Adaptive, nil, 1, func(disk int, p Point) {
		if p.At > time.Second+hangSeen && p.Window != drain.Unlimited {
			closed++
		}
	})
	if closed > 0 || r.Drained || r.Verdict == "" || !strings.HasPrefix(r.Verdict, "disk vda has not answered for ") {
		t.Errorf("%d ticks with a window, %+v", closed, r)
	}
}

// A window that grew for trial and turned out to be too much goes back to what it was, not to what would fit if the disk did one request after
// another; and a grace period that was too long once doesn't keep it from growing ever after.
func TestLossesDontLast(t *testing.T) {
	for _, c := range []struct {
		shape string
		since time.Duration
		least int
	}{{"40 at once, kept", 100 * ms, 36}, {"late host, kept", 2 * time.Second, 64}} {
		for seed := range uint64(10) {
			least := drain.Unlimited
			Run(ByName(c.shape), drain.Adaptive, nil, seed, func(disk int, p Point) {
				if disk == 0 && p.At > c.since {
					least = min(least, p.Window)
				}
			})
			if least < c.least {
				t.Errorf("%s, seed %d: a window of %d, after %v", c.shape, seed, least, c.since)
			}
		}
	}
}

// What a hang looked like has no part in the window afterwards.
func TestAfterHang(t *testing.T) {
	least := drain.Unlimited
	r := Run(ByName("hangs for 2 s"), drain.Adaptive, nil, 1, func(_ int, p Point) {
		if p.State == drain.Ebbing && p.At > 3100*ms {
			least = min(least, p.Window)
		}
	})
	if least < 10 || !r.Drained {
		t.Errorf("windows down to %d, %+v", least, r)
	}
}

// hangSeen is the longest until a disk is found to hang.
const hangSeen = 1200 * ms

// A disk that can't be drained within the budget is named, with what it needs.
func TestVerdict(t *testing.T) {
	for name, want := range map[string]string{
		"parallel 200 ms, 64": "disk vda needs 20",
		"smooth 5, 64":        "disk vda needs 20",
	} {
		r := Run(ByName(name), drain.Adaptive, nil, 1, nil)
		if r.Drained || !strings.HasPrefix(r.Verdict, want) || !strings.Contains(r.Verdict, "a drain budget of 2") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Off leaves windows alone and waits however long it takes; serial is short and slow.
func TestPolicies(t *testing.T) {
	off := Run(ByName("smooth 200, 64"), drain.Off, nil, 1, func(_ int, p Point) {
		if p.Window != drain.Unlimited {
			t.Fatalf("%+v", p)
		}
	})
	if !off.Drained || off.Drains[0] < 300*ms || off.EBB < 0.99 {
		t.Errorf("off: %+v", off)
	}
	serial := Run(ByName("parallel 20 ms, 64"), drain.Serial, nil, 1, nil)
	if !serial.Drained || serial.Drains[0] > 25*ms || serial.EBB > 0.1 {
		t.Errorf("serial: %+v", serial)
	}
}
