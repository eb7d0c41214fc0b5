package migration

import (
	"fmt"
	"time"
)

// standing is Step while the vCPUs stand.
func (s *Source) standing(e Event) []Action {
	switch e.Kind {
	case Stopped:
		if s.stopped {
			return nil
		}
		s.stopped, s.stoppedAt = true, s.now
		if s.ready {
			return s.sendLast()
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
		if !s.handing || s.ready {
			return nil
		}
		s.ready = true
		return s.sendLast()
	case LastOnWay:
		if !s.sending || s.loading {
			return nil
		}
		if s.tooLate(max(stateTime, e.Took) + 2*s.trip) { // loading it takes about as long as saving it
			return s.goOn(lastMemory)
		}
		s.loading, s.loadingAt = true, s.now
		return []Action{{Do: SendState}}
	case LastSent:
		if !s.sending || !s.loading {
			return nil
		}
		s.sending, s.loadingAt = false, s.now
		if s.loaded && s.tooLate(s.trip) {
			return s.goOn(lastMemory)
		}
		return s.commit()
	case Loaded:
		switch {
		case !s.loading || s.loaded:
			return s.fail(fmt.Errorf("the destination says that it has loaded what was not sent"))
		case s.tooLate(s.trip):
			return s.lateLoad()
		}
		s.loaded = true
		return s.commit()
	case Tick:
		if s.closing && !s.handing && e.Drain.Verdict != "" {
			s.verdict = e.Drain.Verdict
		}
		switch {
		case s.overdue() && !s.limits.Force && !s.loading:
			return s.fail(s.timedOut())
		case s.handing && !s.ready && s.now-s.handingAt >= commitLimit:
			return s.fail(fmt.Errorf("the destination has not taken the images within %v", commitLimit))
		case s.sending && !s.loading && s.tooLate(stateTime+2*s.trip):
			return s.goOn(lastMemory)
		case s.loading && s.tooLate(s.trip):
			return s.lateLoad()
		case s.loading && s.now-s.loadingAt >= commitLimit:
			what := "loaded the state"
			if s.sending {
				what = "taken the last of memory"
			}
			return s.fail(fmt.Errorf("the destination has not %s within %v", what, commitLimit))
		}
	}
	return nil
}

func (s *Source) sendLast() []Action {
	s.sending = true
	return []Action{{Do: SendLast}}
}

// commit is the commit point, once memory and state are there: which of them is told first is chance.
func (s *Source) commit() []Action {
	if s.sending || !s.loaded {
		return nil
	}
	s.phase, s.committedAt = Commit, s.now
	return []Action{{Do: SendCommit}}
}

// tooLate reports whether the guest would run too late at the destination if that took so much longer.
func (s *Source) tooLate(rest time.Duration) bool {
	return !s.limits.Offline && !s.forced && s.now+rest > min(s.stoppedAt+s.limits.Downtime, s.until)
}

// lastMemory is a cause to go on.
const lastMemory = "the last of memory and state"

// goOn gives up a stop whose bound comes before the guest could run: back to Hold and out of it.
func (s *Source) goOn(cause string) []Action {
	s.retry(cause)
	s.phase, s.leaving = Hold, true
	s.stopped, s.loading, s.loaded = false, false, false
	acts := []Action{{Do: ResumeGuest}, {Do: TakeBack}}
	if !s.sending { // else when that has ended
		acts = append(acts, Action{Do: SendPass})
	}
	return acts
}

// lateLoad is goOn when all was sent. If it happens more than once, and loading alone takes longer than there is room for, it is the end.
func (s *Source) lateLoad() []Action {
	if s.sending { // nobody has said how much of that was memory's
		return s.goOn(lastMemory)
	}
	took := s.now - s.loadingAt
	if s.lates == 0 || took < s.late {
		s.late = took
	}
	s.lates++
	if s.unavoidable() >= s.room() {
		return s.fail(s.slowLoad())
	}
	return s.goOn("loading the state")
}

// slowLoad names the limit that was first.
func (s *Source) slowLoad() error {
	limit := fmt.Sprintf("--downtime %v", s.limits.Downtime)
	if s.until < s.stoppedAt+s.limits.Downtime {
		limit = fmt.Sprintf("--stall %v leaves for it", s.limits.Stall)
	}
	return fmt.Errorf("loading the state took the destination longer than %s: allow more", limit)
}
