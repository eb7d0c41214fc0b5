package migration

import (
	"fmt"
	"slices"
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

	// commitLimit is how long the destination may take to say that the guest runs, or, where nothing else bounds that, that it has taken the images or
	// loaded the state.
	commitLimit = 30 * time.Second

	// Retries after a missed bound wait, each twice as long as the one before.
	firstBackOff = 100 * time.Millisecond
	lastBackOff  = 5 * time.Second
	slowBackOff  = 10 // times as long as I/O was held, if that was more than twice --stall

	// idlePass is the time between two passes when the next one would have little to do.
	idlePass = 20 * time.Millisecond

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
	failing  int // passes in a row after which too much was dirty
	throttle int // percent

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
	loadingAt time.Duration

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

// Expected is how long the vCPUs would stand if they were stopped now and all disks were drained.
func (s *Source) Expected() time.Duration {
	if s.rate == 0 {
		return 0
	}
	return time.Duration(float64(s.left)/s.rate*1e9) + s.unavoidable()
}

// unavoidable is the part of it that memory has nothing to do with.
func (s *Source) unavoidable() time.Duration { return stateTime + 3*s.trip }

// Step takes in what has happened and returns what is to be done.
func (s *Source) Step(e Event) []Action {
	s.now = e.Now
	switch e.Kind {
	case Failed:
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

// copying is Step while memory is copied and the guest runs.
func (s *Source) copying(e Event) []Action {
	switch e.Kind {
	case PassDone:
		return s.passed(e)
	case Tick:
		return s.tick(e)
	}
	if e.Kind == LastSent && s.sending { // of a stop that was given up
		s.sending = false
		return []Action{{Do: SendPass}}
	}
	if s.phase != Hold {
		return nil
	}
	switch e.Kind {
	case DestinationReady:
		if s.leaving || !s.handing {
			return nil // too late
		}
		s.ready = true
		return []Action{{Do: HurryPass}}
	case Returned:
		if !s.leaving {
			return nil
		}
		s.handing, s.ready, s.leaving = false, false, false
		if held := s.now - (s.until - s.limits.Stall); held > 2*s.limits.Stall { // by a destination that is slow to take or give the images
			s.retryAt = max(s.retryAt, s.now+slowBackOff*held)
		}
		return s.back()
	}
	return nil
}

// passed is the end of a pass over memory.
func (s *Source) passed(e Event) (acts []Action) {
	s.left = e.Left
	s.measure(e)
	fits := s.fits()
	if s.phase == Precopy && fits {
		s.phase = Ebb
		acts = append(acts, Action{Do: BeginDrain})
	}
	if s.mayStop() {
		s.phase = Stop
		return append(acts, Action{Do: StopGuest})
	}
	if fits || s.unavoidable() >= s.room() || s.blocked() || float64(e.Left) <= throttleAbove*float64(e.Sent) {
		s.failing = 0 // or slowing the guest down would not help
	} else if s.failing++; s.failing >= 2 && s.throttle < throttleMost {
		s.failing = 0
		s.throttle = min(max(s.throttle+throttleMore, throttleFirst), throttleMost)
		acts = append(acts, Action{Do: Throttle, Percent: s.throttle})
	}
	next := Action{Do: SendPass}
	if fits && !s.ready {
		next.After = idlePass
	}
	return append(acts, next)
}

// measure takes in how fast a pass was.
func (s *Source) measure(e Event) {
	if e.Wire == 0 || e.Took <= 0 {
		return
	}
	rate := float64(e.Wire) / e.Took.Seconds()
	if rate < s.rate && e.Took < s.room()/2 {
		return
	}
	s.rates[s.measured%ratePasses] = rate
	s.measured++
	s.rate = slices.Max(s.rates[:])
}

// room is how long the vCPUs may stand: --downtime, and no longer than a drain leaves of --stall that takes all it may.
func (s *Source) room() time.Duration {
	if s.limits.Offline {
		return s.limits.Downtime
	}
	return min(s.limits.Downtime, time.Duration((1-drainShare)*float64(s.limits.Stall)))
}

// fits reports whether stopping now would be in time, as far as memory and state are concerned.
func (s *Source) fits() bool { return s.rate > 0 && s.Expected() <= s.room() }

// tooFar says what a destination requires from which messages alone take longer than there is room for.
func (s *Source) tooFar() error {
	least := s.unavoidable()
	if least < s.room() {
		return nil
	}
	option := "--downtime"
	if least < s.limits.Downtime {
		option, least = "--stall", time.Duration(float64(least)/(1-drainShare))
	}
	return fmt.Errorf("a message to the destination and back takes %v, so that %s %v or more is required",
		s.trip.Round(10*time.Microsecond), option, least.Round(time.Millisecond)+time.Millisecond)
}

// tick looks at the time and the disks.
func (s *Source) tick(e Event) []Action {
	if e.Drain.Kept != nil {
		return s.fail(e.Drain.Kept)
	}
	if s.verdict = e.Drain.Verdict; s.verdict == "" {
		s.clear = s.now
	}
	if s.overdue() && !s.forced {
		if !s.limits.Force {
			return s.fail(s.timedOut())
		}
		s.forced = true
	}
	var acts []Action
	if s.blocked() && s.throttle > 0 {
		s.throttle, s.failing = 0, 0
		acts = append(acts, Action{Do: Throttle})
	}
	return append(acts, s.proceed(e)...)
}

// blocked reports that it is the disks that the migration waits for, and not memory: a guest isn't slowed down for that.
func (s *Source) blocked() bool { return s.verdict != "" && s.now-s.clear >= blockedAfter }

// proceed is what a tick leads to in its phase.
func (s *Source) proceed(e Event) []Action {
	switch s.phase {
	case Precopy:
		if s.forced && s.rate > 0 { // before the end of a pass it could not stop anyway, and files are still being sent
			s.phase = Ebb
			return []Action{{Do: BeginDrain}, {Do: HurryPass}}
		}
	case Ebb:
		switch {
		case s.limits.Offline, s.forced:
		case e.Drain.Ready && s.fits() && s.now >= s.retryAt:
			s.phase, s.drained = Hold, false
			s.until = s.now + s.limits.Stall
			return []Action{{Do: HoldDisks}}
		}
	case Hold:
		switch {
		case s.leaving:
		case e.Drain.Off:
			return s.back() // and with the next quiet moment into Hold again
		case e.Drain.Missed || s.now+s.unavoidable() >= s.until:
			return s.missed()
		case e.Drain.Drained && !s.drained:
			s.drained, s.handing = true, true
			return []Action{{Do: HandOver}}
		}
	}
	return nil
}

// overdue reports that --timeout is over.
func (s *Source) overdue() bool { return s.limits.Timeout > 0 && s.now-s.began >= s.limits.Timeout }

// missed gives a hold up whose bound has come.
func (s *Source) missed() []Action {
	switch {
	case s.ready && !s.fits():
		s.retry("memory dirtied too fast")
	case s.ready:
		s.retry("a pass over memory that was not over")
	case s.handing:
		s.retry("the hand-over of the images")
	default:
		s.retry("requests in flight")
	}
	if s.handing {
		s.leaving = true
		return []Action{{Do: TakeBack}}
	}
	return s.back()
}

// retry has the next hold wait.
func (s *Source) retry(cause string) {
	s.causes = append(s.causes, cause)
	s.retryAt = s.now + min(firstBackOff<<min(s.retries, 10), lastBackOff)
	s.retries++
}

// back is Hold's way to Ebb.
func (s *Source) back() []Action {
	s.phase, s.drained = Ebb, false
	return s.reopen()
}

func (s *Source) reopen() []Action { return []Action{{Do: OpenDisks}} }

// mayStop reports whether nothing is left to wait for, or nothing will be waited for. It is asked
// after a pass, so that none is under way when the vCPUs stop and the last one has little to do.
func (s *Source) mayStop() bool {
	switch {
	case s.sending:
		return false
	case s.phase == Ebb:
		return s.forced || s.limits.Offline && s.fits()
	case s.phase == Hold:
		return s.ready && !s.leaving && s.fits() && s.now+s.Expected() <= s.until
	}
	return false
}

// standing is Step while the vCPUs stand.
func (s *Source) standing(e Event) []Action {
	switch e.Kind {
	case Stopped:
		if s.stopped {
			return nil
		}
		s.stopped, s.stoppedAt = true, s.now
		if s.ready {
			s.sending = true
			return []Action{{Do: SendLast}}
		}
		s.closing = true
		return []Action{{Do: CloseDisks}}
	case Drained:
		if !s.closing || s.handing {
			return nil
		}
		s.handing, s.handingAt = true, s.now
		return []Action{{Do: HandOver}}
	case DestinationReady:
		if !s.handing || s.sending {
			return nil
		}
		s.ready, s.sending = true, true
		return []Action{{Do: SendLast}}
	case LastSent:
		if !s.sending || s.loading {
			return nil
		}
		s.sending = false
		if s.late(max(stateTime, e.Took) + 2*s.trip) { // loading it takes about as long as saving it
			return append(s.goOn(), Action{Do: SendPass})
		}
		s.loading, s.loadingAt = true, s.now
		return []Action{{Do: SendState}}
	case Loaded:
		switch {
		case !s.loading:
			return s.fail(fmt.Errorf("the destination says that it has loaded what was not sent"))
		case s.late(s.trip):
			return s.fail(s.tooLate())
		}
		s.phase, s.committedAt = Commit, s.now
		return []Action{{Do: SendCommit}}
	case Tick:
		switch {
		case s.overdue() && !s.limits.Force && !s.loading:
			return s.fail(s.timedOut())
		case s.handing && !s.ready && s.now-s.handingAt >= commitLimit:
			return s.fail(fmt.Errorf("the destination has not taken the images within %v", commitLimit))
		case s.loading && s.late(s.trip):
			return s.fail(s.tooLate())
		case s.loading && s.now-s.loadingAt >= commitLimit:
			return s.fail(fmt.Errorf("the destination has not loaded the state within %v", commitLimit))
		case s.sending && s.late(stateTime+2*s.trip):
			return s.goOn()
		}
	}
	return nil
}

// late reports whether the guest would run too late at the destination if that took so much longer.
func (s *Source) late(rest time.Duration) bool {
	return !s.limits.Offline && !s.forced && s.now+rest > min(s.stoppedAt+s.limits.Downtime, s.until)
}

// goOn gives up a stop whose bound comes before the state was sent: back to Hold and out of it. Later that
// can't be, for a destination loads only once.
func (s *Source) goOn() []Action {
	s.retry("the last of memory and state")
	s.phase, s.stopped, s.leaving = Hold, false, true
	return []Action{{Do: ResumeGuest}, {Do: TakeBack}}
}

// tooLate names the limit that was first.
func (s *Source) tooLate() error {
	limit := fmt.Sprintf("--downtime %v", s.limits.Downtime)
	if s.until < s.stoppedAt+s.limits.Downtime {
		limit = fmt.Sprintf("--stall %v leaves for it", s.limits.Stall)
	}
	return fmt.Errorf("loading the state took the destination longer than %s: allow more", limit)
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
		acts = append(acts, s.reopen()...) // else when the locks are back
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
