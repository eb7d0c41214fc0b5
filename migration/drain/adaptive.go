package drain

import (
	"math"
	"time"

	"github.com/ebb-vmm/ebb/aio"
)

const (
	// aim is the part of the budget that a drain should take, high the part beyond which
	// a window must shrink, low the part below which it may grow. What lies between high and the
	// budget is for the drains that no sample foretold.
	aim, high, low = 0.7, 0.9, 0.5

	// firstWindow is for a disk of which nothing is known, because it was idle: few enough for a disk
	// of 100 IOPS, and as it grows fourfold a tick, a fast disk isn't kept back for long.
	firstWindow = 8

	// remembered is how many grace periods are looked back on.
	remembered = 8

	// beliefs lasts how long the law relies on having seen that a smaller window costs throughput.
	beliefs = 5 * time.Second
)

// adaptive is the law of Adaptive. A grace period of length D that waited for n requests says: if the
// disk does one after the other, as throttled and overloaded disks do, then
//
//	fit = n · aim · B / D        B: the budget
//
// requests would have taken aim·B. The window becomes that as soon as D, or the age of the one
// going on, exceeds high·B. It depends on n and not on the present window: what was in flight before the
// window shrank says the same again instead of shrinking it once more.
//
// A disk that does many at once takes as long for few requests as for many, and a smaller window only costs
// throughput. That shows in a first step that did not help: the next one is not made before the rate has
// been measured, and if that has fallen with the window, the window goes back to
//
//	floor = W · rate before / rate
//
// It grows fourfold a grace period as long as it never had to shrink, and then by an eighth, when
// `remembered` grace periods all were shorter than low·B, or when they fit and the rate has suffered.
type adaptive struct {
	budget time.Duration
	aim    float64
	window int
	ebbing bool
	shrunk bool // in this EBB

	seen    [remembered]aio.GracePeriod // the latest that counted, under this window in EBB
	n       int                         // how many were seen
	flushes int                         // grace periods with long operations since the last without

	before meter // with the window open, over the last second or two
	open   meter // the same, not yet a second
	level  meter // under the present window, from when in flight fit it

	floor      int // 0: none is known
	floorUntil time.Duration
	longest    time.Duration // of seen, long operations or not
}

func newAdaptive(budget time.Duration) Law {
	return &adaptive{budget: budget, aim: aim, window: Unlimited}
}

func (a *adaptive) Bottom() bool { return a.window == 1 || a.floor > 0 && a.window <= a.floor }

func (a *adaptive) Missed() { a.aim *= aim }

func (a *adaptive) part(f float64) time.Duration { return time.Duration(f * float64(a.budget)) }

func (a *adaptive) Step(now time.Duration, s Sample, ebbing bool) int {
	if !ebbing {
		a.ebbing = false
		a.learn(now, s)
		return Unlimited
	}
	if !a.ebbing {
		a.begin()
	}
	a.ebbing = true
	if a.level.ticks > 0 || s.InFlight <= a.window {
		a.level.tick(now, s, a.window)
	}
	if now > a.floorUntil {
		a.floor = 0
	}
	for _, p := range s.Ended {
		if !a.counts(p) {
			continue
		}
		a.shrink(now, p)
		if p.InFlight <= a.window {
			a.note(p)
			a.grow(p)
		}
	}
	if s.Going.InFlight > 0 && (!s.Going.Long || a.flushes > remembered/2) {
		a.shrink(now, s.Going)
	}
	return a.window
}

// learn looks at an open window.
func (a *adaptive) learn(now time.Duration, s Sample) {
	for _, p := range s.Ended {
		if a.counts(p) {
			a.note(p)
		}
	}
	a.open.tick(now, s, Unlimited)
	if a.open.span() > time.Second {
		a.before, a.open = a.open, meter{}
	}
}

// counts reports whether a grace period says how long a drain takes. Those with long operations don't, for
// admission doesn't close while one is in flight, unless there are no others.
func (a *adaptive) counts(p aio.GracePeriod) bool {
	a.longest = max(p.Length, a.longest-a.longest/8)
	if !p.Long {
		a.flushes = 0
	} else {
		a.flushes++
	}
	return p.InFlight > 0 && (!p.Long || a.flushes > remembered/2)
}

func (a *adaptive) note(p aio.GracePeriod) {
	a.seen[a.n%remembered] = p
	a.n++
}

// fit is the number of requests that would have taken aim·B.
func (a *adaptive) fit(p aio.GracePeriod) int {
	w := float64(p.InFlight) * a.aim * float64(a.budget) / float64(max(p.Length, time.Microsecond))
	return int(max(1, min(w, Unlimited)))
}

// begin chooses the first window from what was seen while it was open.
func (a *adaptive) begin() {
	if a.before.ticks == 0 {
		a.before = a.open
	}
	a.open, a.shrunk = meter{}, false
	w, slow := firstWindow, false
	if a.n > 0 {
		w = Unlimited
		for _, p := range a.seen[:min(a.n, remembered)] {
			w = min(w, a.fit(p))
			slow = slow || p.Length > a.part(high)
		}
	}
	a.set(w)
	a.shrunk = slow
}

func (a *adaptive) set(w int) {
	a.window, a.level, a.n = w, meter{}, 0
}

// shrink follows a grace period, over or not, that is too long.
func (a *adaptive) shrink(now time.Duration, p aio.GracePeriod) {
	w := max(a.fit(p), a.floor)
	if p.Length <= a.part(high) || w >= a.window {
		return
	}
	if a.shrunk && a.before.ticks > 0 {
		// Half of what a disk would lose that does all at once.
		loss := (1 + min(1, float64(a.window)/a.before.depth())) / 2
		switch {
		case p.InFlight > a.window || a.level.span() < max(200*time.Millisecond, a.longest*3/2):
			return // too soon to tell
		case a.level.bound() && a.level.rate() < loss*a.before.rate():
			a.floor = a.window
			if r := a.level.rate(); r > 0 {
				a.floor = int(math.Ceil(float64(a.window) * a.before.rate() / r))
			}
			a.floor = min(a.floor, int(math.Ceil(a.before.depth())))
			a.floorUntil = now + beliefs
			a.set(a.floor)
			return
		}
	}
	a.shrunk = true
	a.set(w)
}

// grow follows a grace period under this window.
func (a *adaptive) grow(p aio.GracePeriod) {
	if p.InFlight < a.window {
		return // more would not be used
	}
	if !a.shrunk {
		if p.Length < a.part(low) {
			a.set(max(a.window, min(a.fit(p), 4*a.window)))
		}
		return
	}
	if a.n < remembered {
		return
	}
	var worst time.Duration
	for _, p := range a.seen {
		worst = max(worst, p.Length)
	}
	suffers := a.level.span() > time.Second && a.level.rate() < 0.95*a.before.rate()
	if worst < a.part(low) || suffers && worst < a.part(high) {
		a.set(a.window + max(1, a.window/8))
	}
}
