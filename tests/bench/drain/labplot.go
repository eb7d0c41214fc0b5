package main

import (
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/migration/drain/sim"
	"github.com/ebb-vmm/ebb/tests/bench/chart"
)

// drawn are the VMs in the picture.
var drawn = []string{"smooth 64", "sliced 64", "null_blk 64", "40 at once", "flushes", "hangs, then not"}

// plot draws one migration of some VMs: the simulated one above, the real one below.
func (rec *record) plot(path string) error {
	rows := make([][]*plot.Plot, 6)
	column := 0
	for i := range reals {
		r := &reals[i]
		moved := rec.moved(r.name)
		if len(moved) == 0 || !slices.Contains(drawn, r.name) {
			continue
		}
		for k, t := range []trace{traceOf(r.simulated, sim.Laws[0], 3), moved[0].trace()} {
			title := r.name + [2]string{", simulated", ", in the lab"}[k]
			first := panel(column, title, "requests")
			lines(first, line{"window", t.window, chart.Orange, nil}, line{"in flight", t.inFlight, chart.Blue, nil})
			first.Y.Max = openWindow + 40
			second := panel(column, "", "requests/s, over 200 ms")
			lines(second, line{"", t.rate, chart.Green, nil})
			third := panel(column, "", "longest request, ms")
			lines(third, line{"", t.longest, chart.Purple, nil})
			third.X.Label.Text = "seconds since EBB"
			for row, p := range []*plot.Plot{first, second, third} {
				shade(p, t.held)
				rows[3*k+row] = append(rows[3*k+row], p)
			}
		}
		column++
	}
	if column == 0 {
		return nil
	}
	return chart.Save(path, rows, 230, 140)
}

// trace is the migration over time: of the first disk what is in flight, of all together what the guest saw.
func (t *trial) trace() (tr trace) {
	rep := t.Report
	var ebb time.Duration
	for i, p := range rep.Phases {
		if p.Phase == migration.Ebb.String() && ebb == 0 {
			ebb = p.At
		}
		if p.Phase == migration.Hold.String() && i+1 < len(rep.Phases) {
			to := rep.Total
			for _, q := range rep.Phases[i+1:] {
				if q.Phase == migration.Ebb.String() {
					to = q.At
					break
				}
			}
			tr.held = append(tr.held, span{(p.At - ebb).Seconds(), (to - ebb).Seconds()})
		}
	}
	for _, s := range rep.Samples {
		x, d, window := (s.At - ebb).Seconds(), s.Disks[0], openWindow
		if d.Window != nil {
			window = min(*d.Window, openWindow)
		}
		tr.window = append(tr.window, plotter.XY{X: x, Y: float64(window)})
		tr.inFlight = append(tr.inFlight, plotter.XY{X: x, Y: float64(d.InFlight)})
	}
	began := t.Ended - rep.Total // the report's clock is that of the source
	for _, l := range t.Lines {
		x := (l.At - began - ebb).Seconds()
		if x < before || x > after {
			continue
		}
		tr.rate = append(tr.rate, plotter.XY{X: x, Y: l.IOPS})
		tr.longest = append(tr.longest, plotter.XY{X: x, Y: millisOf(l.Max)})
	}
	return tr
}
