package sim

import (
	"slices"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/migration/drain"
)

// NamedLaw is a way to drain.
type NamedLaw struct {
	Name   string
	Policy drain.Policy
	Law    func(time.Duration) drain.Law
}

// Laws are those that were tried; the first is the default.
var Laws = []NamedLaw{
	{"adaptive", drain.Adaptive, nil},
	{"p95", drain.Adaptive, func(b time.Duration) drain.Law { return &percentile{common: common{budget: b}} }},
	{"p95, fresh", drain.Adaptive, func(b time.Duration) drain.Law { return &percentile{common: common{budget: b}, fresh: true} }},
	{"AIMD", drain.Adaptive, func(b time.Duration) drain.Law { return &aimd{common{budget: b}} }},
	{"bisection", drain.Adaptive, func(b time.Duration) drain.Law { return &bisection{common: common{budget: b}} }},
	{"rate", drain.Adaptive, func(b time.Duration) drain.Law { return &rate{common: common{budget: b}} }},
	{"serial", drain.Serial, nil},
	{"off", drain.Off, nil},
}

// common is what the other laws share: they begin with what is in flight.
type common struct {
	budget time.Duration
	window int
	ebbing bool
}

func (c *common) Bottom() bool { return c.window == 1 }
func (c *common) Missed()      {}

// begin reports whether EBB goes on, and sets the first window.
func (c *common) begin(s drain.Sample, ebbing bool) bool {
	if ebbing && !c.ebbing {
		if c.window = s.InFlight; c.window == 0 {
			c.window = 8
		}
	}
	c.ebbing = ebbing
	return ebbing
}

// percentile is the law
//
//	p95(D) > B   → W ← max(1, 0.7·W·B/D)
//	p95(D) < B/2 → W ← W + max(1, W/8)
//
// with the 95th percentile of the latest 64 grace periods in which the window was the limit; with fresh, of those since the
// last step.
type percentile struct {
	common
	fresh bool
	log   []time.Duration
}

func (l *percentile) Step(_ time.Duration, s drain.Sample, ebbing bool) int {
	if !l.begin(s, ebbing) {
		for _, p := range s.Ended {
			l.add(p)
		}
		return drain.Unlimited
	}
	for _, p := range s.Ended {
		if p.InFlight < l.window {
			continue
		}
		l.add(p)
		d, w := quantile(l.log, 0.95), l.window
		if d > l.budget {
			l.window = max(1, int(0.7*float64(l.window)*float64(l.budget)/float64(d)))
		} else if d < l.budget/2 {
			l.window += max(1, l.window/8)
		}
		if l.fresh && l.window != w {
			l.log = l.log[:0]
		}
	}
	return l.window
}

func (l *percentile) add(p aio.GracePeriod) {
	if len(l.log) == 64 {
		l.log = slices.Delete(l.log, 0, 1)
	}
	l.log = append(l.log, p.Length)
}

// aimd halves the window when a grace period under it was too long, and adds one when it was not.
type aimd struct{ common }

func (l *aimd) Step(_ time.Duration, s drain.Sample, ebbing bool) int {
	if !l.begin(s, ebbing) {
		return drain.Unlimited
	}
	for _, p := range s.Ended {
		switch {
		case p.InFlight > l.window:
		case p.Length > l.budget*9/10:
			l.window = max(1, l.window/2)
		case p.InFlight == l.window:
			l.window++
		}
	}
	return l.window
}

// bisection looks for the largest window under which three grace periods fit, and begins anew when one doesn't.
type bisection struct {
	common
	low, high, good int
}

func (l *bisection) Step(_ time.Duration, s drain.Sample, ebbing bool) int {
	first := !l.ebbing
	if !l.begin(s, ebbing) {
		return drain.Unlimited
	}
	if first {
		l.low, l.high, l.good = 1, l.window+1, 0
	}
	for _, p := range s.Ended {
		switch {
		case p.InFlight > l.window:
			continue
		case p.Length > l.budget*9/10:
			l.high, l.good = l.window, 0
			if l.window <= l.low {
				l.low = 1
			}
		default:
			if l.good++; l.good < 3 {
				continue
			}
			l.low, l.good = l.window, 0
			if l.low >= l.high-1 && p.InFlight == l.window && p.Length < l.budget/2 {
				l.high = 2 * l.low
			}
		}
		l.window = max(1, (l.low+l.high)/2)
	}
	return l.window
}

// rate is W = μ·(B − L): what the disk does in the budget, less what it does in a request's latency, which by Little's law is
// in flight / μ.
type rate struct {
	common
	at   []time.Duration
	done []uint64
}

func (l *rate) Step(now time.Duration, s drain.Sample, ebbing bool) int {
	l.at, l.done = append(l.at, now), append(l.done, s.Completed)
	if len(l.at) > 100 {
		l.at, l.done = slices.Delete(l.at, 0, 1), slices.Delete(l.done, 0, 1)
	}
	if !l.begin(s, ebbing) {
		return drain.Unlimited
	}
	span := (l.at[len(l.at)-1] - l.at[0]).Seconds()
	if span == 0 {
		return l.window
	}
	mu := float64(l.done[len(l.done)-1]-l.done[0]) / span
	l.window = max(1, int(mu*l.budget.Seconds()-float64(s.InFlight)))
	return l.window
}
