package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain/sim"
)

type table map[cell]sum

const intro = `# Draining simulated disks

VMs with disks and guests that exist only as arithmetic (migration/drain/sim), migrated %d times each with every law. RAM is ready
2 to 4 s after EBB begins; then admission closes as soon as all disks are ready, and all that is in flight must have
completed within %d ms. After 20 s a migration is given up. What the laws are, and what follows from this: [drain.md](../drain.md).
This file is written by

    go run ./tests/bench/drain -seeds %[1]d

It is the same on every machine.

![windows, rates and grace periods over time](drain.svg)

![windows by law over time](drain-laws.svg)

## The default law

*Ready*: from EBB to the first time that all disks were, median and 99th percentile. *Rate*: requests in EBB by those of the same seconds
without migration, median and lowest. *Drain*: from the disk's admission closing to nothing in flight, the slowest disk's. *Latency*: the longest of a
request that completed between the closing and the opening of admission, most of which it had waited before.

| VM | | drained | ready, ms | rate in EBB | drain, ms: median, p99, max | within the budget | missed | in flight at the stop | latency, ms |
|---|---|---|---|---|---|---|---|---|---|
`

func (t table) markdown(seeds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, intro, seeds, sim.Budget.Milliseconds())
	for i, shape := range sim.Shapes {
		s := t[cell{i, 0}]
		ready, drains := "never", "–"
		if len(s.ready) > 0 {
			ready = fmt.Sprintf("%d, %d", millis(at(s.ready, 0.5)), millis(at(s.ready, 0.99)))
		}
		if len(s.drains) > 0 {
			drains = fmt.Sprintf("%d, %d, %d", millis(at(s.drains, 0.5)), millis(at(s.drains, 0.99)), millis(at(s.drains, 1)))
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %.2f, %.2f | %s | %s | %d | %d | %d |\n",
			shape.Name, shape.About, s.drained, ready, at(s.ebb, 0.5), s.ebb[0], drains, within(s), s.missed, s.inFlight, millis(at(s.latency, 1)))
	}
	fmt.Fprint(&b, "\nWhat it says in the end about those that can't be drained, or not always:\n\n")
	for i, shape := range sim.Shapes {
		if s := t[cell{i, 0}]; s.verdict != "" && s.drained < seeds {
			fmt.Fprintf(&b, "- %s: “%s”\n", shape.Name, strings.ReplaceAll(s.verdict, "\n", "; "))
		}
	}
	t.matrix(&b, "Rate in EBB", "Median, by that of the same seconds without migration.", func(s sum) string {
		return fmt.Sprintf("%.2f", at(s.ebb, 0.5))
	})
	t.matrix(&b, "Drains within the budget", "Of all that were begun, and how many migrations were drained in the end.", func(s sum) string {
		return fmt.Sprintf("%s, %d", within(s), s.drained)
	})
	t.matrix(&b, "Time a drain takes", "Milliseconds, median and 99th percentile; a drain that was given up counts with the time until then.", func(s sum) string {
		if len(s.drains) == 0 {
			return "–"
		}
		return fmt.Sprintf("%d, %d", millis(at(s.drains, 0.5)), millis(at(s.drains, 0.99)))
	})
	t.matrix(&b, "Time until ready", "Milliseconds after EBB begins, median; how many never were.", func(s sum) string {
		if len(s.ready) == 0 {
			return "never"
		}
		if never := seeds - len(s.ready); never > 0 {
			return fmt.Sprintf("%d; %d never", millis(at(s.ready, 0.5)), never)
		}
		return fmt.Sprint(millis(at(s.ready, 0.5)))
	})
	return b.String()
}

// matrix is one figure of all VMs and laws.
func (t table) matrix(b *strings.Builder, title, about string, figure func(sum) string) {
	fmt.Fprintf(b, "\n## %s, by law\n\n%s\n\n| VM |", title, about)
	for _, l := range sim.Laws {
		fmt.Fprintf(b, " %s |", l.Name)
	}
	fmt.Fprintf(b, "\n|---|%s\n", strings.Repeat("---|", len(sim.Laws)))
	for i, shape := range sim.Shapes {
		fmt.Fprintf(b, "| %s |", shape.Name)
		for k := range sim.Laws {
			fmt.Fprintf(b, " %s |", figure(t[cell{i, k}]))
		}
		fmt.Fprintln(b)
	}
}

func within(s sum) string {
	if len(s.drains) == 0 {
		return "–"
	}
	return fmt.Sprintf("%d/%d", s.within, len(s.drains))
}

func millis(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }
