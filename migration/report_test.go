package migration

import (
	"strings"
	"testing"
	"time"
)

// A migration that lasts doesn't make a report without bounds, and its samples stay in order.
func TestReportIsBounded(t *testing.T) {
	r := &Report{}
	for i := range 100_000 {
		r.sample(Sample{At: time.Duration(i) * tickTime})
	}
	if n := len(r.Samples); n > maxSamples || n < maxSamples/4 || r.Samples[0].At != 0 {
		t.Errorf("%d samples, the first at %v", n, r.Samples[0].At)
	}
	for i := range len(r.Samples) - 1 {
		if r.Samples[i].At >= r.Samples[i+1].At {
			t.Fatalf("sample %d at %v, the next at %v", i, r.Samples[i].At, r.Samples[i+1].At)
		}
	}
	last := r.Samples[len(r.Samples)-1].At
	if end := 100_000 * tickTime; end-last > end/100 {
		t.Errorf("the last at %v of %v", last, end)
	}
}

// Whichever is told first, that memory is there or that the state is loaded: the parts of the downtime are the whole.
func TestDowntimeAddsUp(t *testing.T) {
	const ms = time.Millisecond
	for _, loaded := range []time.Duration{18 * ms, 22 * ms} {
		r := Report{stopping: 10 * ms, stoppedAt: 11 * ms, saved: ms, lastTook: 8 * ms, sentAt: 20 * ms, loadedAt: loaded}
		r.finished(25 * ms)
		d := r.Downtime
		if sum := d.Stop + d.Drain + d.LastRAM + d.State + d.Commit; sum != 15*ms || d.Total != sum || d.State < ms {
			t.Errorf("loaded at %v: %+v", loaded, d)
		}
	}
}

func TestLine(t *testing.T) {
	ms := time.Millisecond
	r := Report{Total: 1800 * ms, Held: 31 * ms, Downtime: Downtime{Total: 4100 * time.Microsecond, Stop: 300 * time.Microsecond, LastRAM: 1200 * time.Microsecond,
		State: 900 * time.Microsecond, Commit: 1500 * time.Microsecond, Resume: 200 * time.Microsecond}}
	want := "migrated in 1.8 s · downtime 4.1 ms (stop 0.3 · last RAM 1.2 · state 0.9 · commit 1.5 · resume 0.2) · I/O held 31 ms · in flight at stop 0"
	if got := r.Line(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	r.Downtime.Drain, r.InFlight = 320*ms, 64
	if got := r.Line(); !strings.Contains(got, "stop 0.3 · drain 320.0 · last RAM") || !strings.HasSuffix(got, "in flight at stop 64") {
		t.Error(got)
	}
}
