package migration

import (
	"fmt"
	"time"
)

// Limits are what a user allows a migration.
type Limits struct {
	Downtime time.Duration // how long the vCPUs may stand
	Stall    time.Duration // how long a disk may take no requests, from the first that closes until the guest runs somewhere
	Timeout  time.Duration // of all of it; 0: none
	Force    bool          // at the timeout: go on and exceed the other two, instead of giving up
	Offline  bool          // drain policy off: the disks are drained after the stop, however long it takes, and the other two bound nothing after it
}

const (
	// stateTime is taken for what the devices' state costs, until it was saved.
	stateTime = 3 * time.Millisecond

	// Retries after a missed bound wait, each twice as long as the one before; and as long as I/O was held (Source.held).
	firstBackOff = 100 * time.Millisecond
	lastBackOff  = 5 * time.Second
	slowBackOff  = 10 // times as long as I/O was held, if that was more than twice --stall

	// The time between two passes when memory is not what is waited for. Each makes the guest fault on every page that it writes again, and takes
	// processors from it: in Ebb, which may last, there are few, and fewer the longer it does (Source.pause); those in Hold leave little to the one that is hurried.
	ebbPass     = 100 * time.Millisecond
	ebbPassMost = time.Second
	holdPass    = 20 * time.Millisecond

	// shortPass is the part of --downtime that a pass may take before the pause after it is made shorter again.
	shortPass = 0.1

	// The link's rate is the highest of so many passes, as in BBR: no pass shows more than the link does,
	// and one that looks through many pages of zeroes shows less. So does one that has little to send, most of whose time
	// is the message back; it counts only if it raises the rate, or took so long that it matters.
	ratePasses = 8

	// A guest that dirties more than this part of what a pass sends, in two passes one after
	// the other, is slowed down: first by throttleFirst percent, then by throttleMore more each time.
	throttleAbove = 0.5
	throttleFirst = 20
	throttleMore  = 10
	throttleMost  = 99

	// blockedAfter is how long the disks must have lacked something, for a while, before it is they that matter.
	blockedAfter = time.Second
)

// commitLimit is how long the destination may take to say that the guest runs, or, where nothing else bounds that, that it has taken
// the images, has the last of memory, which was sent, or has loaded the state. Tests change it.
var commitLimit = 30 * time.Second

// Source is what the source of a migration does: a state machine without clock, connection or
// goroutine. Whoever drives it tells what has happened and carries out what Step returns, in that order. The zero value isn't useful: NewSource.
type Source struct {
	limits Limits

	phase Phase
	now   time.Duration // of the last event
	began time.Duration

	// RAM.
	left     uint64              // bytes, after the last pass
	rates    [ratePasses]float64 // bytes a second, of the latest passes that count
	measured int
	rate     float64 // the highest of them; 0: not known
	trip     time.Duration
	failing  int           // passes in a row after which too much was dirty
	pausing  time.Duration // before the next pass in Ebb
	throttle int           // percent

	// Hold and what leads there.
	retries int
	retryAt time.Duration
	causes  []string      // why each hold was missed
	until   time.Duration // --stall is over: by then the guest runs elsewhere, or all disks are open again
	drained bool
	handing bool // Handover was asked for, and not taken back
	ready   bool
	leaving bool // TakeBack was asked for
	forced  bool

	// Stop.
	stopped   bool
	stoppedAt time.Duration
	closing   bool          // CloseDisks was asked for
	handingAt time.Duration // Handover was, after that
	sending   bool          // SendLast was, and has not ended; the guest may run again
	loading   bool          // SendState was
	loadingAt time.Duration // since then, or since the memory that it needs is there
	loaded    bool          // it is
	lates     int           // loads that were over too late
	late      time.Duration // how long the shortest of those took

	committedAt time.Duration

	verdict string        // what the disks lack, as of the last tick
	clear   time.Duration // when they lacked nothing, the last time
	err     error
}

// NewSource returns a machine in Run.
func NewSource(l Limits) *Source { return &Source{limits: l} }

// Phase returns how far it is.
func (s *Source) Phase() Phase { return s.phase }

// Err is why the migration failed, in Run after one; or, in Commit, why nobody knows whether it did.
func (s *Source) Err() error { return s.err }

// Retries returns why each hold so far was missed.
func (s *Source) Retries() []string { return s.causes }

// Throttled returns by how many percent the vCPUs are slowed down.
func (s *Source) Throttled() int { return s.throttle }

// Step takes in what has happened and returns what is to be done.
func (s *Source) Step(e Event) []Action {
	s.now = e.Now
	switch e.Kind {
	case Failed:
		return s.fail(e.Err)
	case Aborted:
		if s.phase == Commit && s.err == nil {
			s.phase = Stop // it has come too late there, and the guest is still this side's
		}
		return s.fail(e.Err)
	case Cancelled:
		if s.phase == Commit {
			return nil // too late
		}
		return s.fail(errCancelled)
	}
	switch s.phase {
	case Setup:
		switch {
		case e.Kind == Tick && s.overdue() && !s.limits.Force:
			return s.fail(s.timedOut())
		case e.Kind == Accepted:
			s.trip = e.Trip
			if err := s.tooFar(); err != nil && !s.limits.Force {
				return s.fail(err)
			}
			s.phase, s.clear = Precopy, s.now
			return []Action{{Do: TrackMemory}, {Do: SendPass}}
		}
	case Run:
		switch e.Kind {
		case Begin:
			*s = Source{limits: s.limits, phase: Setup, now: e.Now, began: e.Now}
			return []Action{{Do: Connect}}
		case Reclaimed:
			return s.reopen()
		case OwnerLost:
			s.err = fmt.Errorf("%w; and the guest is paused here: %w", s.err, e.Err)
			return []Action{{Do: PauseGuest, Err: e.Err}}
		}
	case Precopy, Ebb, Hold:
		return s.copying(e)
	case Stop:
		return s.standing(e)
	case Commit:
		switch {
		case e.Kind == Runs:
			s.phase = Gone
			return []Action{{Do: Leave}}
		case s.now-s.committedAt >= commitLimit:
			return s.fail(fmt.Errorf("no answer for %v", commitLimit))
		}
	}
	return nil
}

// fail ends the migration. Before Commit the guest goes on here; in Commit nobody may go on by himself.
func (s *Source) fail(err error) []Action {
	switch s.phase {
	case Run, Gone:
		return nil
	case Commit:
		if s.err == nil {
			s.err = err
			return []Action{{Do: Strand, Err: err}}
		}
		return nil
	}
	var acts []Action // what the guest waits for comes first
	if s.phase == Stop {
		acts = append(acts, Action{Do: ResumeGuest})
	}
	if s.throttle > 0 {
		acts = append(acts, Action{Do: Throttle})
	}
	if !s.handing {
		acts = append(acts, s.reopen()...) // else each when its lock is back
	}
	s.phase, s.err, s.throttle = Run, err, 0
	return append(acts, Action{Do: Abandon, Err: err}, Action{Do: Reclaim})
}

func (s *Source) timedOut() error {
	why := s.verdict
	switch {
	case s.phase == Setup:
		why = "the destination has not answered"
	case s.phase == Stop && s.closing && !s.handing && why == "":
		why = "requests were still in flight, and the vCPUs stood"
	case s.phase == Stop && s.handing && !s.ready && why == "":
		why = "the destination has not taken the images"
	case s.phase == Stop && why == "":
		why = "the last of memory was not over"
	}
	if why == "" && s.phase == Precopy || why == "" && !s.fits() {
		why = fmt.Sprintf("the guest dirties its memory faster than it is sent (%d MiB left, %.0f MiB a second)", s.left>>20, s.rate/(1<<20))
	}
	if why == "" {
		why = "its disks never were as quiet as --stall wants"
		if n := len(s.causes); n > 0 {
			why = fmt.Sprintf("--stall %v or --downtime %v was over before the guest could go, %d times, the last time because of %s",
				s.limits.Stall, s.limits.Downtime, n, s.causes[n-1])
		}
	}
	return fmt.Errorf("not migrated within --timeout %v: %s", s.limits.Timeout, why)
}
