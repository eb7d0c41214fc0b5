package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/harness"
	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// record is everything that was measured.
type record struct {
	Command, Host            string
	InLab                    bool
	Downtime, Stall, Control time.Duration
	MemoryMiB                int // of guests whose memory matters
	Samples                  []sample
}

// load reads what was saved; the error is nil, and so is the record, where nothing was.
func load(path string) (*record, error) {
	r := &record{}
	if found, err := harness.Load(path, r); err != nil || !found {
		return nil, err
	}
	return r, nil
}

// of are the figures of a cell's migrations that did not fail.
func (r *record) of(c cell, figure func(f figures) float64) stat.Stat {
	var v []float64
	for _, s := range r.Samples {
		if s.Cell == c && s.Failed == "" {
			v = append(v, figure(s.Figures))
		}
	}
	return stat.Of(v)
}

// failed counts those that did.
func (r *record) failed(c cell) (n int) {
	for _, s := range r.Samples {
		if s.Cell == c && s.Failed != "" {
			n++
		}
	}
	return n
}

// count is how many migrations of a cell there were.
func (r *record) count(c cell) string {
	n := fmt.Sprint(r.of(c, gap).N)
	if f := r.failed(c); f > 0 {
		n += fmt.Sprintf(", %d failed", f)
	}
	return n
}

// loads are those measured, in the order of their first samples.
func (r *record) loads() (list []cell) {
	for _, s := range r.Samples {
		if load := s.Cell.by(cell{}); !slices.Contains(list, load) {
			list = append(list, load)
		}
	}
	return list
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func (s sample) String() string {
	f := s.Figures
	if s.Failed != "" {
		return fmt.Sprintf("%-36v failed: %s", s.Cell, s.Failed)
	}
	text := fmt.Sprintf("%-36v gap %6.1f ms after %.2f s (before %5.1f, at the switch %6.1f)  longest request %6.1f ms (before %6.1f)  clock lost %5.1f ms  own downtime %5.1f ms in %4.1f s",
		s.Cell, ms(f.Gap), f.GapAt.Seconds(), ms(f.ControlGap), ms(f.SwitchGap), ms(f.Latency), ms(f.ControlLatency), ms(f.Lost), ms(f.Own.Downtime), f.Own.Total.Seconds())
	if s.Cell.VMM == "ebb" {
		d := f.Own.Split
		text += fmt.Sprintf(" (stop %.1f drain %.1f RAM %.1f state %.1f commit %.1f)  I/O held %.0f ms  ebb %.2f s at %.0f of %.0f IOPS  in flight %d  retries %d",
			ms(d.Stop), ms(d.Drain), ms(d.LastRAM), ms(d.State), ms(d.Commit), ms(f.Own.Held), f.Own.Ebb.Seconds(), f.Own.EbbRate, f.Before, f.Own.InFlight, len(f.Own.Retries))
	}
	if s.Cell.ofMemory() {
		text += fmt.Sprintf("  plain copy %.0f MB/s  first pass %.0f MB/s  sent %.0f MB  passes %d  slowed by %d %%", f.Plain/1e6, f.Own.Rate/1e6, float64(f.Own.Sent)/1e6, f.Own.Passes, f.Own.Throttle)
	}
	for _, p := range f.Own.Phases {
		text += fmt.Sprintf("  %s %.2f", p.Phase, p.At.Seconds())
	}
	return text
}
