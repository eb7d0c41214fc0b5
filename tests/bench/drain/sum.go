package main

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain/sim"
)

// sum is what came of migrations of one VM with one law.
type sum struct {
	drained  int             // of the migrations
	ready    []time.Duration // sorted; of those that ever were
	ebb      []float64       // sorted
	drains   []time.Duration // sorted
	within   int             // of the drains, those within the budget
	missed   int
	inFlight int             // at the stop, all together
	latency  []time.Duration // sorted
	verdict  string          // the last one
}

func sumOf(ctx context.Context, c cell, seeds int) sum {
	var s sum
	law := sim.Laws[c.law]
	for seed := range uint64(seeds) {
		if ctx.Err() != nil {
			break // nobody looks at it
		}
		r := sim.Run(&sim.Shapes[c.shape], law.Policy, law.Law, seed, nil)
		if r.Drained {
			s.drained++
		}
		if r.Ready > 0 {
			s.ready = append(s.ready, r.Ready)
		}
		s.ebb = append(s.ebb, r.EBB)
		s.drains = append(s.drains, r.Drains...)
		for _, d := range r.Drains {
			if d <= sim.Budget {
				s.within++
			}
		}
		s.missed += r.Missed
		s.inFlight += r.InFlight
		s.latency = append(s.latency, r.MaxLatency)
		if r.Verdict != "" {
			s.verdict = r.Verdict
		}
	}
	slices.Sort(s.ready)
	slices.Sort(s.ebb)
	slices.Sort(s.drains)
	slices.Sort(s.latency)
	return s
}

// at is the value that a part q of the sorted ones doesn't exceed; there must be one.
func at[T any](sorted []T, q float64) T {
	return sorted[min(len(sorted)-1, max(0, int(math.Ceil(q*float64(len(sorted))))-1))]
}
