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

// goals are those that can be judged here.
func (r *record) goals() (all []goal) {
	for _, depth := range r.depths() {
		at := func(disk, vmm, policy string) cell { return cell{Disk: disk, Depth: depth, VMM: vmm, Policy: policy} }
		adaptive, qemu := at(slow, "ebb", "adaptive"), at(slow, "QEMU", "")
		add := func(name string, limit float64, atLeast bool, unit string, got float64, of ...stat.Stat) {
			g := goal{name: fmt.Sprintf("slow disk, %d writes: %s", depth, name), limit: limit, atLeast: atLeast, unit: unit, got: got}
			g.measured = !slices.ContainsFunc(of, func(s stat.Stat) bool { return s.N == 0 })
			all = append(all, g)
		}
		a, q := r.of(adaptive, gap), r.of(qemu, gap)
		add("ebb's gap / QEMU's, medians", 1./8, false, "", a.Median/q.Median, a, q)
		add("ebb's gap / QEMU's, maxima", 1./8, false, "", a.High/q.High, a, q)
		b, p := r.of(adaptive, blackout), r.of(qemu, blackout)
		add("the same at the switch, with what the guests' clocks lost, medians", 1./8, false, "", b.Median/p.Median, b, p)
		if !r.InLab {
			add("ebb's gap, median", 6, false, "ms", a.Median, a)
			add("ebb's gap, maximum", 15, false, "ms", a.High, a)
		}
		f := r.of(at(fast, "ebb", "adaptive"), gap)
		add("ebb's gap beyond that on the fast disk, medians", 2, false, "ms", a.Median-f.Median, a, f)
		e := r.ebbRates(adaptive)
		add("requests a second in EBB / before, median", 0.9, true, "", e.Median, e)
		l := r.of(adaptive, moreLatency)
		add("ebb's longest request beyond that of the control window, maximum", ms(r.Stall), false, "ms", l.High, l)
	}
	return all
}

// ebbRates are the rates in EBB by those before, where EBB took long enough.
func (r *record) ebbRates(c cell) stat.Stat {
	var v []float64
	for _, s := range r.Samples {
		if s.Cell == c && s.Failed == "" && s.Figures.Own.EbbRate > 0 && s.Figures.Before > 0 {
			v = append(v, s.Figures.Own.EbbRate/s.Figures.Before)
		}
	}
	return stat.Of(v)
}

// depths are those measured, in the order of their first sample.
func (r *record) depths() (list []int) {
	for _, s := range r.Samples {
		if !slices.Contains(list, s.Cell.Depth) {
			list = append(list, s.Cell.Depth)
		}
	}
	return list
}
