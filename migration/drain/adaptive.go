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
	aim, high, low = 0.6, 0.9, 0.5

	// firstWindow is the least for a disk of which no grace period is known, because it was idle: few enough for a disk
	// of 100 IOPS, and as it grows fourfold a tick, a fast disk isn't kept back for long.
	firstWindow = 8

	// remembered is how many grace periods are looked back on.
	remembered = 8

	// lately is how many ticks a.long looks back on, on average: a second.
	lately = 200

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
// Where requests overtake each other, the last of n takes much longer than n do, and so fit is far too low. While the window never had
// to shrink, what says so is the rate before: with done = rate · aim · B, the window becomes that if it is 1.5 · fit or more.
//
// A disk that does many at once takes as long for few requests as for many, and a smaller window only costs
// throughput. So the next step is not made before the rate under the window has been measured, for as long as a
// grace period, and if that has fallen with the window, the window goes back to
//
//	floor = W · rate before / rate
//
// It grows fourfold a grace period as long as it never had to shrink, and then by an eighth a second at most:
// when all grace periods of that second were shorter than low·B, or when they were shorter than high·B and the rate has suffered.
// If that turns out to be too much, it goes back to what it was, and is not tried again for some time.
//
// A window under which all grace periods of a second were short enough is trusted: a single one that is too long, though not twice, is taken
// for the host's, whose processors were elsewhere.
type adaptive struct {
	budget time.Duration
	aim    float64
	window int
	ebbing bool
	shrunk bool // in this EBB

	seen [remembered]aio.GracePeriod // the latest that counted
	kept int                         // how many were seen ever

	// Of those under this window, for a second at a time.
	n       int
	worst   time.Duration
	late    int  // those beyond high
	trusted bool // one such second had none

	proven    int           // the window before it grew for trial; 0: it didn't
	growAgain time.Duration // not before that

	before meter // with the window open, over the last second in which requests completed
	open   meter // the same, not yet a second
	level  meter // under the present window, from when in flight fit it
	lost   int   // times in a row that it was too low

	long float64 // part of the time in which a long operation is in flight: moving average over lately ticks

	floor      int // 0: none is known
	floorUntil time.Duration
	longest    time.Duration // of those that counted, lately
}

func newAdaptive(budget time.Duration) Law {
	return &adaptive{budget: budget, aim: aim, window: Unlimited}
}

func (a *adaptive) Bottom() bool { return a.window == 1 || a.floor > 0 && a.window <= a.floor }

func (a *adaptive) Missed() { a.aim *= 0.7 }

func (a *adaptive) part(f float64) time.Duration { return time.Duration(f * float64(a.budget)) }

func (a *adaptive) Step(now time.Duration, s Sample, ebbing bool) int {
	a.long -= a.long / lately
	if s.Long > 0 {
		a.long += 1. / lately
	}
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
	a.guard(now)
	for _, p := range s.Ended {
		if !a.counts(p) {
			continue
		}
		under := p.InFlight <= a.window
		if under {
			a.note(p)
			a.observe(p)
		}
		a.shrink(now, p)
		if under {
			a.grow(now, p)
		}
	}
	if s.Going.InFlight > 0 && !a.excused(s.Going) {
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
		if a.open.rate() > 0 {
			a.before = a.open
		}
		a.open = meter{}
	}
}

// counts reports whether a grace period says how long a drain takes.
func (a *adaptive) counts(p aio.GracePeriod) bool {
	if p.InFlight == 0 || a.excused(p) {
		return false
	}
	a.longest = max(p.Length, a.longest-a.longest/8)
	return true
}

// excused reports whether a grace period is so long only for a long operation, which HOLD lets go by before admission closes. Where
// one is in flight most of the time, that is a rare moment; with fewer requests in flight it comes sooner.
func (a *adaptive) excused(p aio.GracePeriod) bool { return p.Long && a.long < 0.5 }

func (a *adaptive) note(p aio.GracePeriod) {
	a.seen[a.kept%remembered] = p
	a.kept++
}

// observe takes in a grace period under this window.
func (a *adaptive) observe(p aio.GracePeriod) {
	a.n++
	a.worst = max(a.worst, p.Length)
	if p.Length > a.part(high) {
		a.late++
	}
}

// fit is the number of requests that would have taken aim·B.
func (a *adaptive) fit(p aio.GracePeriod) int {
	w := float64(p.InFlight) * a.aim * float64(a.budget) / float64(max(p.Length, time.Microsecond))
	return int(max(1, min(w, Unlimited)))
}

// first is what the window becomes if it never had to shrink: fit, or done where requests overtake each other.
func (a *adaptive) first(p aio.GracePeriod) int {
	fit, done := a.fit(p), a.done()
	if 2*done >= 3*fit && done < p.InFlight { // with as many as p waited for, p says more
		return done
	}
	return fit
}

// done is how many requests the disk did in aim·B before EBB.
func (a *adaptive) done() int { return int(a.before.rate() * a.part(a.aim).Seconds()) }

// begin chooses the first window from the grace periods seen while it was open: what those that took too long bound it to, or, if none
// did, all that was ever in flight, and what would have fit. Without any it is what was done in aim·B.
func (a *adaptive) begin() {
	if a.before.ticks == 0 {
		a.before = a.open
	}
	a.open, a.shrunk, a.growAgain = meter{}, false, 0
	w, most, slow := Unlimited, max(firstWindow, a.done()), false
	if a.kept > 0 {
		most = 1
	}
	for _, p := range a.seen[:min(a.kept, remembered)] {
		if p.Length > a.part(high) {
			w, slow = min(w, a.first(p)), true
		} else {
			most = max(most, p.InFlight, a.fit(p))
		}
	}
	if !slow {
		w = most
	}
	a.set(w)
	a.shrunk = slow
}

func (a *adaptive) set(w int) {
	a.window, a.lost, a.proven, a.trusted = w, 0, 0, false
	a.anew()
}

// anew begins to observe the window.
func (a *adaptive) anew() { a.level, a.n, a.worst, a.late = meter{}, 0, 0, 0 }

// shrink follows a grace period, over or not, that is too long.
func (a *adaptive) shrink(now time.Duration, p aio.GracePeriod) {
	if p.Length <= a.part(high) {
		return
	}
	if a.shrunk && a.before.ticks > 0 && (p.InFlight > a.window || !a.measured()) {
		return // it is not of this window, or too soon to tell what that costs
	}
	if a.trusted && a.late < 2 && p.Length <= 2*a.part(high) {
		return
	}
	w := a.fit(p)
	switch {
	case !a.shrunk:
		w = a.first(p)
	case a.proven > 0:
		w, a.growAgain = max(w, a.proven), now+beliefs
	}
	if w = max(w, a.floor); w < a.window {
		a.shrunk = true
		a.set(w)
	}
}

// measured reports whether the rate under this window is known.
func (a *adaptive) measured() bool { return a.level.span() >= max(200*time.Millisecond, a.longest) }

// guard takes a window back that costs throughput. Where grace periods have become short enough, that must show
// twice in a row: on a backing that several disks share, those whose windows shrink first lose for a moment.
func (a *adaptive) guard(now time.Duration) {
	if !a.shrunk || a.before.ticks == 0 || !a.measured() {
		return
	}
	if !a.level.bound() || a.level.rate() >= a.loss()*a.before.rate() {
		a.lost = 0
		return
	}
	a.lost++
	if a.lost < 2 && a.worst <= a.part(high) {
		a.level = meter{}
		return
	}
	w := int(math.Ceil(a.before.depth()))
	if r := a.level.rate(); r > 0 {
		w = min(w, int(math.Ceil(float64(a.window)*a.before.rate()/r)))
	}
	if w > a.window {
		a.floor, a.floorUntil = w, now+beliefs
		a.set(w)
	}
}

// loss is the part of the rate that is taken for a loss, for it is more than half of what a disk loses that does all at once:
//
//	(1 + W / in flight before) / 2
func (a *adaptive) loss() float64 { return (1 + min(1, float64(a.window)/a.before.depth())) / 2 }

// grow follows a grace period under this window. One that isn't full would not be used if it were larger.
func (a *adaptive) grow(now time.Duration, p aio.GracePeriod) {
	full := p.InFlight >= a.window
	if full && !a.shrunk && p.Length < a.part(low) {
		a.set(max(a.window, min(a.fit(p), 4*a.window)))
		return
	}
	if a.n < remembered || a.level.span() < time.Second {
		return
	}
	suffers := a.level.rate() < 0.95*a.before.rate()
	if full && a.shrunk && now >= a.growAgain && (a.worst < a.part(low) || suffers && a.worst < a.part(high)) {
		proven := a.window
		a.set(proven + max(1, proven/8))
		a.proven = proven
		return
	}
	a.trusted = a.late == 0
	a.anew()
}
