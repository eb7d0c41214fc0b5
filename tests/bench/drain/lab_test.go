package main

import (
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration"
)

// migrated is a trial with four disks of 200, 1000, 1000 and 1000 requests a second before, that was in EBB for 2 s with a HOLD between.
func migrated(failed string, kept bool) trial {
	t := trial{
		Kept: kept, Failed: failed, Before: []float64{200, 1000, 1000, 1000}, Latency: 400 * ms, ControlLat: 320 * ms,
		Report: &migration.Report{Total: 4 * time.Second, Held: 240 * ms},
	}
	if failed != "" {
		t.After = []float64{200, 1000, 1000, 1000}
	}
	for _, p := range []struct {
		phase string
		at    time.Duration
	}{{"precopy", 0}, {"ebb", time.Second}, {"hold", 2 * time.Second}, {"ebb", 2200 * ms}, {"hold", 3200 * ms}, {"stop", 3400 * ms}} {
		t.Report.Phases = append(t.Report.Phases, migration.PhaseTime{Phase: p.phase, At: p.at, InFlight: 12})
	}
	slow, fast, window := uint64(1000), uint64(9000), 12
	for at := time.Second; at < 3200*ms; at += 100 * ms {
		phase := "ebb"
		if at >= 2*time.Second && at < 2200*ms {
			phase = "hold"
		} else {
			slow, fast = slow+19, fast+95
		}
		t.Report.Samples = append(t.Report.Samples, migration.Sample{At: at, Phase: phase, Disks: []migration.DiskSample{{Completed: slow, InFlight: 12, Window: &window}, {Completed: fast}, {Completed: fast}, {Completed: fast}}})
	}
	return t
}

func TestLabDocument(t *testing.T) {
	rec := &record{Host: "a host", Trials: map[string][]trial{
		"smooth 64":       {migrated("", false), migrated("not migrated: disk vdb needs 400 ms", true)},
		"sliced 64":       {migrated("", false), migrated("not migrated within --timeout", false), migrated("not migrated: disk vdb needs 400 ms", true)},
		"hangs for good":  {migrated("not migrated: disk vda has not answered", false)},
		"hangs, then not": {migrated("", false)},
	}}
	rec.Trials["smooth 64"][0].Report.Held = 260 * ms
	text := rec.markdown()
	for _, want := range []string{
		"0.95: pass | 260 ms: short | 80 ms: pass | 0: pass |\n",
		"until after --timeout | 0.95: pass | – | – | – |\n",
		" | 0.95: pass | 240 ms: pass | – | 0: pass |\n",
		"| smooth 64 | 1 | 2.00 (2.00–2.00) | 0.95 (0.95–0.95) | 400 (400–400) | 260 (260–260) | 0 | 12 (12–12) |",
		"| smooth 64 | 1.8 | 200 | 190 | 200 | 100 | 400 | 320 | 0 | 0 | not migrated: disk vdb needs 400 ms |\n",
		"| hangs for good | 1.8 | 3000 | 2850 | 3000 | 0 |",
		"0.95: short, a move failed | 240 ms: short, a move failed |",
		"\n- sliced 64: not migrated within --timeout\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the document lacks %q:\n%s", want, text)
		}
	}
}

// A disk that was idle before EBB is measured by what it does after.
func TestLateDisk(t *testing.T) {
	m := migrated("never quiet", true)
	m.Before[0] = 0
	s := m.Report.Samples
	for i := range s {
		s[i].Disks[0].Completed = uint64(max(0, i-len(s)/2) * 20) // it begins in the middle
	}
	if got, _ := m.rate(0, 1); got < 0.99 || got > 1.01 {
		t.Errorf("rate %.2f", got)
	}
}

func TestParseNames(t *testing.T) {
	if names, err := parseNames("smooth 64/hangs, then not"); err != nil || len(names) != 2 {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := parseNames("smooth"); err == nil {
		t.Error("an unknown VM")
	}
	if names, _ := parseNames(""); len(names) != len(reals) {
		t.Errorf("%q", names)
	}
}
