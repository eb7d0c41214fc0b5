package main

import (
	"fmt"
	"slices"

	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// goal is something ebb is meant to reach: at most, or at least, a figure.
type goal struct {
	name     string
	limit    float64
	atLeast  bool
	unit     string
	got      float64
	measured bool
}

func (g goal) met() bool { return g.atLeast && g.got >= g.limit || !g.atLeast && g.got <= g.limit }

func (g goal) verdict() string {
	switch {
	case !g.measured:
		return "not measured"
	case g.met():
		return "pass"
	default:
		return "short"
	}
}

func (g goal) limitText() string {
	side := "at most"
	if g.atLeast {
		side = "at least"
	}
	return fmt.Sprintf("%s %s", side, g.number(g.limit))
}

func (g goal) number(v float64) string {
	if g.unit == "" {
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.1f %s", v, g.unit)
}

func (g goal) String() string {
	if !g.measured {
		return fmt.Sprintf("%-80s %s: not measured", g.name, g.limitText())
	}
	return fmt.Sprintf("%-80s %s: %s %s", g.name, g.limitText(), g.number(g.got), g.verdict())
}

// Figures of one migration.
func gap(f figures) float64        { return ms(f.Gap) }
func switchGap(f figures) float64  { return ms(f.SwitchGap) }
func controlGap(f figures) float64 { return ms(f.ControlGap) }
func lost(f figures) float64       { return ms(f.Lost) }
func blackout(f figures) float64   { return ms(f.blackout()) }
func latency(f figures) float64    { return ms(f.Latency) }
func moreLatency(f figures) float64 {
	return ms(f.Latency - f.ControlLatency)
}
func controlLatency(f figures) float64 { return ms(f.ControlLatency) }
func downtime(f figures) float64       { return ms(f.Own.Downtime) }

func total(f figures) float64    { return f.Own.Total.Seconds() }
func sent(f figures) float64     { return float64(f.Own.Sent) / 1e6 }
func rate(f figures) float64     { return f.Own.Rate / 1e6 }
func plain(f figures) float64    { return f.Plain / 1e6 }
func passes(f figures) float64   { return float64(f.Own.Passes) }
func slowedBy(f figures) float64 { return float64(f.Own.Throttle) }
func ratePlain(f figures) float64 {
	return f.Own.Rate / f.Plain
}

// goals collects goals of one load.
type goals struct {
	load cell
	list []goal
}

// add takes a goal, which was measured if each of what it is made of was.
func (g *goals) add(name string, limit float64, atLeast bool, unit string, got float64, of ...stat.Stat) {
	g.list = append(g.list, goal{
		name: g.load.load() + ": " + name, limit: limit, atLeast: atLeast, unit: unit, got: got,
		measured: !slices.ContainsFunc(of, func(s stat.Stat) bool { return s.N == 0 }),
	})
}

// The cells that goals are about.
var adaptive, qemuCell = candidates[0], candidates[1]

// diskGoals are those that can be judged here.
func (r *record) diskGoals() (all []goal) {
	for _, load := range r.loads() {
		if load.Disk != slow {
			continue
		}
		g := goals{load: load}
		ebb, qemu := load.by(adaptive), load.by(qemuCell)
		a, q := r.of(ebb, gap), r.of(qemu, gap)
		g.add("ebb's gap / QEMU's, medians", 1./8, false, "", a.Median/q.Median, a, q)
		g.add("ebb's gap / QEMU's, maxima", 1./8, false, "", a.High/q.High, a, q)
		b, p := r.of(ebb, blackout), r.of(qemu, blackout)
		g.add("the same at the switch, with what the guests' clocks lost, medians", 1./8, false, "", b.Median/p.Median, b, p)
		if load.Guest == ring3 {
			if !r.InLab {
				g.add("ebb's gap, median", 6, false, "ms", a.Median, a)
				g.add("ebb's gap, maximum", 15, false, "ms", a.High, a)
			}
			onFast := ebb
			onFast.Disk = fast
			f := r.of(onFast, gap)
			g.add("ebb's gap beyond that on the fast disk, medians", 2, false, "ms", a.Median-f.Median, a, f)
		}
		e := r.ebbRates(ebb)
		g.add("requests a second in EBB / before, median", 0.9, true, "", e.Median, e)
		l := r.of(ebb, moreLatency)
		g.add("ebb's longest request beyond that of the control window, maximum", ms(r.Stall), false, "ms", l.High, l)
		all = append(all, g.list...)
	}
	return all
}

// memoryGoals are those of guests with much memory.
func (r *record) memoryGoals() (all []goal) {
	for _, load := range r.loads() {
		g := goals{load: load}
		ebb, qemu := load.by(adaptive), load.by(qemuCell)
		a, q := r.of(ebb, total), r.of(qemu, total)
		g.add("ebb's time / QEMU's, medians", 1, false, "", a.Median/q.Median, a, q)
		if load.Dirty == 0 {
			s := r.of(ebb, ratePlain)
			g.add("ebb's first pass / a plain copy, median", 0.7, true, "", s.Median, s)
		}
		all = append(all, g.list...)
	}
	return all
}

// ebbRates are the rates in EBB by those before, where EBB took long enough.
func (r *record) ebbRates(c cell) stat.Stat {
	var v []float64
	for _, s := range r.Samples {
		if s.Cell == c && s.Failed == "" && s.Figures.Own.EbbRated && s.Figures.Before > 0 {
			v = append(v, s.Figures.Own.EbbRate/s.Figures.Before)
		}
	}
	return stat.Of(v)
}
