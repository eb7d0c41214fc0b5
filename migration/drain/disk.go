package drain

import (
	"fmt"
	"time"

	"github.com/ebb-vmm/ebb/aio"
)

const (
	// confirmed is how many grace periods in a row must have fit before a disk is ready.
	confirmed = 5

	// hungAfter is the least time without a completion after which a disk is taken to hang; with it goes
	// four times the longest of late. The same holds for a grace period, if meanwhile four times as many
	// requests have completed as it waits for: one was lost, or is overtaken by all others.
	hungAfter = time.Second

	// noGap is how long a disk may always have had a long operation in flight before that is said, and how long
	// it is remembered how slow a disk is that has nothing to do any more.
	noGap = 5 * time.Second
)

// disk is what the controller knows about one disk.
type disk struct {
	name   string
	budget time.Duration
	law    Law
	window int // in EBB
	s      Sample

	seen    [confirmed]aio.GracePeriod // the latest that say how long a drain takes
	n       int                        // how many were seen in this EBB
	latest  time.Duration              // when the last of them ended
	longest time.Duration              // grace period of late: decays by an eighth with each
	flush   time.Duration              // the same, of those with long operations: by a 64th, for there are few
	gap     time.Duration              // when no long operation was in flight, the last time
	now     time.Duration

	progress  time.Duration // when a request completed, the last time, or nothing was in flight
	pause     time.Duration // longest of late between two completions
	goingFrom uint64        // requests completed when the grace period that goes on was first seen
	tainted   bool          // that one saw the disk hang: its length says nothing about drains

	closes time.Duration // in HOLD: when admission closes
	closed bool
}

// step decides on the window after observe. Whether the disk ebbs or is open is the controller's.
func (d *disk) step(ebbing bool) {
	d.taint()
	now, s := d.now, d.s
	if d.tainted {
		s.Going = aio.GracePeriod{}
	}
	if !ebbing {
		d.n, d.gap = 0, now
	}
	if s.Long == 0 {
		d.gap = now
	}
	d.window = d.law.Step(now, s, ebbing)
	for _, p := range s.Ended {
		d.longest = max(p.Length, d.longest-d.longest/8)
		if p.Long {
			d.flush = max(p.Length, d.flush-d.flush/64)
		}
		// How long one with a long operation takes is that operation's, unless even so it fit.
		if p.InFlight <= d.window && (!p.Long || p.Length <= d.most()) {
			d.seen[d.n%confirmed] = p
			d.n, d.latest = d.n+1, now
		}
	}
	d.s.Ended = nil
}

// taint drops the grace period that saw the disk hang, for the window of a healthy disk must not follow from it.
func (d *disk) taint() {
	switch {
	case d.hung():
		d.tainted = true
	case d.tainted && len(d.s.Ended) > 0:
		d.tainted = false
	default:
		return
	}
	d.s.Ended = nil
}

// observe keeps the sample, and what tells whether the disk hangs.
func (d *disk) observe(now time.Duration, s Sample) {
	if s.Going.Length < d.s.Going.Length || d.s.Going.InFlight == 0 || s.Completed < d.goingFrom {
		d.goingFrom = s.Completed
	}
	if s.Completed != d.s.Completed { // fewer: its driver was started anew
		d.pause = max(now-d.progress, d.pause-d.pause/8)
		d.progress = now
	}
	if s.InFlight == 0 {
		d.progress = now
	}
	d.now, d.s = now, s
}

// expect is how long a drain begun now would take: the longest of the latest grace periods, and
// of the one going on what it has lasted.
func (d *disk) expect() time.Duration {
	if d.s.InFlight == 0 {
		return 0
	}
	return max(d.s.Going.Length, d.usual())
}

// usual is the longest of the latest grace periods.
func (d *disk) usual() (longest time.Duration) {
	for _, p := range d.seen[:min(d.n, confirmed)] {
		longest = max(longest, p.Length)
	}
	return longest
}

// most is the longest expected drain that the budget is believed to cover.
func (d *disk) most() time.Duration { return d.budget * 9 / 10 }

func (d *disk) ready() bool {
	return d.s.InFlight == 0 || d.n >= confirmed && d.s.InFlight <= d.window && d.expect() <= d.most() && !d.flushes()
}

// flushes reports that a long operation is in flight that may take too long. How much longer, nobody knows.
func (d *disk) flushes() bool { return d.s.Long > 0 && d.flush > d.most() }

func (d *disk) hung() bool { return d.silence() > 0 }

// silence is how long the disk has hung; 0: it doesn't.
func (d *disk) silence() time.Duration {
	g := d.s.Going
	switch quiet := d.now - d.progress; {
	case d.s.InFlight == 0:
		return 0
	case quiet > max(hungAfter, 4*d.pause):
		return quiet
	case g.Length > max(hungAfter, 4*d.longest) && d.s.Completed-d.goingFrom > 4*uint64(g.InFlight):
		return g.Length
	}
	return 0
}

// A Shortfall says that a disk can't be drained within the budget.
type Shortfall struct {
	Disk   string
	Hangs  time.Duration // it, or one of its requests, has not answered for so long; else 0
	Needs  time.Duration // what a drain takes with the least in flight that makes sense
	Window int           // that number of requests
	Flush  bool          // it is a flush, discard or write-zeroes that takes so long
	Budget time.Duration // what --stall must leave for the drain, at least
}

func (s *Shortfall) Error() string { return s.Sentence("a drain budget of " + millis(s.Budget)) }

// Sentence says it with the option that the user would have to change, and how.
func (s *Shortfall) Sentence(option string) string {
	switch {
	case s.Hangs > 0:
		return fmt.Sprintf("disk %s has not answered for %s", s.Disk, millis(s.Hangs))
	case s.Flush:
		return fmt.Sprintf("disk %s needs %s for a flush, and one is always in flight; %s or more required", s.Disk, millis(s.Needs), option)
	case s.Window == 1:
		return fmt.Sprintf("disk %s needs %s for one request; %s or more required", s.Disk, millis(s.Needs), option)
	}
	return fmt.Sprintf("disk %s needs %s, and with fewer than %d requests in flight it only gets slower; %s or more required",
		s.Disk, millis(s.Needs), s.Window, option)
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%d ms", (d + time.Millisecond - 1).Milliseconds())
}

// verdict is nil as long as it may still work out.
func (d *disk) verdict() error {
	s := Shortfall{Disk: d.name, Window: d.window}
	switch {
	case d.hung():
		s.Hangs = d.silence()
		return &s
	case d.now-d.gap > noGap && d.flush > d.most():
		s.Needs, s.Flush = d.flush, true
	case d.s.InFlight == 0 && d.now-d.latest > noGap: // what was is of no interest any more
		return nil
	case d.law.Bottom() && d.n >= confirmed && d.usual() > d.most():
		s.Needs = d.usual()
	default:
		return nil
	}
	s.Budget = (s.Needs*10/9/(10*time.Millisecond) + 1) * 10 * time.Millisecond
	return &s
}
