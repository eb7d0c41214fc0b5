package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// moved are the migrations that were meant to succeed and did.
func (rec *record) moved(name string) (all []*trial) { return rec.which(name, false, false) }

// kept is the one that the companion kept in EBB, or a disk that hangs; nil: it wasn't measured.
func (rec *record) kept(r *real) *trial {
	for _, t := range rec.which(r.name, r.hang == never, true) {
		return t
	}
	return nil
}

// failed are those that were meant to succeed and didn't.
func (rec *record) failed(r *real) []*trial {
	if r.hang == forGood {
		return nil
	}
	return rec.which(r.name, false, true)
}

func (rec *record) which(name string, kept, failed bool) (all []*trial) {
	for i := range rec.Trials[name] {
		if t := &rec.Trials[name][i]; t.Kept == kept && (t.Failed != "") == failed {
			all = append(all, t)
		}
	}
	return all
}

// goal is something ebb is meant to reach on a VM.
type goal struct {
	name     string
	limit    float64
	atLeast  bool
	got      float64
	measured bool
	failed   bool // so did a move
}

func (g goal) verdict() string {
	switch {
	case g.failed:
		return "short, a move failed"
	case !g.measured:
		return "–"
	case g.atLeast && g.got >= g.limit || !g.atLeast && g.got <= g.limit:
		return "pass"
	}
	return "short"
}

// goals are those of one VM.
func (rec *record) goals(r *real) (all []goal) {
	moved, kept := rec.moved(r.name), rec.kept(r)
	rate := goal{name: "rate in EBB / before, least of its disks", limit: 0.9, atLeast: true, got: math.Inf(1)}
	long := moved
	if kept != nil {
		long = []*trial{kept}
	}
	for _, t := range long {
		if first, n := r.judged(); t.rateOfAll(first, n) >= 0 {
			got, _ := t.rate(first, n)
			rate.got, rate.measured = min(rate.got, got), true
		}
	}
	held := goal{name: "I/O held, ms, most", limit: millisOf(realStall), measured: len(moved) > 0}
	longer := goal{name: "longest request beyond that before, ms, most", limit: millisOf(realStall), measured: len(moved) > 0 && r.hang == never}
	left := goal{name: "in flight at the stop, most", measured: len(moved) > 0}
	for _, t := range moved {
		held.got = max(held.got, millisOf(t.Report.Held))
		longer.got = max(longer.got, millisOf(t.Latency-t.ControlLat))
		left.got = max(left.got, float64(t.Report.InFlight))
	}
	all = []goal{rate, held, longer, left}
	for i := range all {
		all[i].failed = len(rec.failed(r)) > 0
	}
	return all
}

// judged are the disks whose rate counts: from first, and how many.
func (r *real) judged() (first, n int) {
	if r.hang != never {
		return 1, len(r.disks) - 1
	}
	return 0, len(r.disks)
}

const labIntro = `# Draining real disks

A guest of one vCPU (guest/diskbench) that keeps writes of 4 KiB outstanding on each of its disks is migrated from one process to another
in the lab (docs/lab.md), whose code is emulated, but whose disks take the time they take. The VMs are like those of [drain.md](drain.md), as
far as the lab can make them:

    %s

%s. ` + "`--downtime %v --stall %v`" + `, of which a drain has 150 ms, as in the simulator.

Each guest is migrated some times in a row (*moves*). As EBB is short where nothing but the disks is waited for, the rate in EBB comes from one migration more (*kept*), in
which a further disk that needs 400 ms for every request keeps the VM in EBB until ` + "`--timeout %v`" + `: each disk's rate then by that of the %v before,
the worst disk's; where the guest began only then, by that of the %v after it. Where it was not kept, the rates are those of the moves. A disk that hangs doesn't count.

![in flight, rate and longest request over time, simulated and in the lab](drain-lab.svg)

`

func (rec *record) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, labIntro, "go run ./tests/bench/drain -lab", rec.Host, realDowntime, realStall, keptFor, control, control)
	b.WriteString("## Goals\n\n| VM | | rate in EBB / before, at least 0.9 | I/O held, at most " + realStall.String() + " | longest request beyond that before, at most " + realStall.String() + " | in flight at the stop |\n|---|---|---|---|---|---|\n")
	for i := range reals {
		r := &reals[i]
		if len(rec.Trials[r.name]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |", r.name, r.about)
		for k, g := range rec.goals(r) {
			if !g.measured && !g.failed {
				b.WriteString(" – |")
				continue
			}
			verb := "%.0f ms: %s |"
			if k == 0 {
				verb = "%.2f: %s |"
			} else if k == 3 {
				verb = "%.0f: %s |"
			}
			fmt.Fprintf(&b, " "+verb, g.got, g.verdict())
		}
		b.WriteByte('\n')
	}
	b.WriteString("\n## Moves\n\nMedians, with the lowest and the highest.\n\n| VM | n | EBB, s | rate in EBB / before | HOLD, ms | I/O held, ms | holds missed | in flight when HOLD began | at the stop | longest request, ms | before | took, s |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for i := range reals {
		rec.row(&b, &reals[i])
	}
	title := "\n## Moves that failed\n\nThe guest then ran on at the source.\n\n"
	for i := range reals {
		for _, t := range rec.failed(&reals[i]) {
			fmt.Fprintf(&b, "%s- %s: %s\n", title, reals[i].name, t.Failed)
			title = ""
		}
	}
	rec.keptTable(&b)
	return b.String()
}

// row is one VM's moves.
func (rec *record) row(b *strings.Builder, r *real) {
	moved := rec.moved(r.name)
	if len(moved) == 0 {
		return
	}
	of := func(verb string, figure func(t *trial) float64) string {
		var v []float64
		for _, t := range moved {
			if f := figure(t); f >= 0 {
				v = append(v, f)
			}
		}
		return stat.Of(v).Format(verb)
	}
	missed := 0
	for _, t := range moved {
		missed += len(t.Report.Retries)
	}
	fmt.Fprintf(b, "| %s | %d | %s | %s | %s | %s | %d | %s | %s | %s | %s | %s |\n", r.name, len(moved),
		of("%.2f", func(t *trial) float64 { ebb, _ := t.phases(); return ebb.Seconds() }),
		of("%.2f", func(t *trial) float64 { return t.rateOfAll(r.judged()) }),
		of("%.0f", func(t *trial) float64 { _, hold := t.phases(); return millisOf(hold) }),
		of("%.0f", func(t *trial) float64 { return millisOf(t.Report.Held) }), missed,
		of("%.0f", func(t *trial) float64 { return float64(t.inFlightAt(migration.Hold)) }),
		of("%.0f", func(t *trial) float64 { return float64(t.Report.InFlight) }),
		of("%.0f", func(t *trial) float64 { return millisOf(t.Latency) }),
		of("%.0f", func(t *trial) float64 { return millisOf(t.ControlLat) }),
		of("%.1f", func(t *trial) float64 { return t.Report.Total.Seconds() }))
}

// keptTable is of those migrations that were not meant to succeed.
func (rec *record) keptTable(b *strings.Builder) {
	b.WriteString("\n## Kept in EBB\n\nThe rates are of all disks that count, in requests a second. *Window full*: the part of EBB in which the disk that lost most had as much in flight as its window let it. Where that is hardly ever, it lost its rate not to the drain but to a host without a processor to spare, " +
		"which the migration is work for, too.\n\n| VM | EBB, s | before | in EBB | after | window full, % | longest request, ms | before | guest's gap, ms | before | what ebb says in the end |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for i := range reals {
		r := &reals[i]
		t := rec.kept(r)
		if t == nil {
			continue
		}
		first, n := r.judged()
		var before, in, after, took float64
		for d := first; d < first+n; d++ {
			requests, span := t.inEBB(d)
			before, after, in = before+t.Before[d], after+t.After[d], in+requests/max(span.Seconds(), 1e-9)
			took = max(took, span.Seconds())
		}
		_, worst := t.rate(first, n)
		fmt.Fprintf(b, "| %s | %.1f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %s |\n", r.name, took, before, in, after, 100*t.full(worst),
			millisOf(t.Latency), millisOf(t.ControlLat), millisOf(t.Gap), millisOf(t.ControlGap), t.Failed)
	}
}

// phases are how long it was in EBB and in HOLD, all together.
func (t *trial) phases() (ebb, hold time.Duration) {
	p := t.Report.Phases
	for i := range p[:max(len(p)-1, 0)] {
		switch took := p[i+1].At - p[i].At; p[i].Phase {
		case migration.Ebb.String():
			ebb += took
		case migration.Hold.String():
			hold += took
		}
	}
	return ebb, hold
}

// inFlightAt is what was in flight when a phase began the last time.
func (t *trial) inFlightAt(phase migration.Phase) (n int) {
	for _, p := range t.Report.Phases {
		if p.Phase == phase.String() {
			n = p.InFlight
		}
	}
	return n
}

// publish prints the goals and writes the document and the picture.
func (rec *record) publish(doc string) error {
	for i := range reals {
		if len(rec.Trials[reals[i].name]) == 0 {
			continue
		}
		for _, g := range rec.goals(&reals[i]) {
			fmt.Printf("%-16s %-46s %8.2f of %.1f  %s\n", reals[i].name, g.name, g.got, g.limit, g.verdict())
		}
	}
	if err := os.WriteFile(doc, []byte(rec.markdown()), 0o644); err != nil {
		return err
	}
	return rec.plot(filepath.Join(filepath.Dir(doc), "drain-lab.svg"))
}
