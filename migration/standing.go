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
		if !s.handing || s.sending {
			return nil
		}
		s.ready = true
		return s.sendLast()
	case LastOnWay:
		if s.sending && !s.sent {
			s.sent, s.sentAt = true, s.now
		}
	case LastSent:
		if !s.sending || s.loading {
			return nil
		}
		s.sending = false
		if s.tooLate(max(stateTime, e.Took) + 2*s.trip) { // loading it takes about as long as saving it
			return append(s.goOn("the last of memory and state"), Action{Do: SendPass})
		}
		s.loading, s.loadingAt = true, s.now
		return []Action{{Do: SendState}}
	case Loaded:
		switch {
		case !s.loading:
			return s.fail(fmt.Errorf("the destination says that it has loaded what was not sent"))
		case s.tooLate(s.trip):
			return s.lateLoad()
		}
		s.phase, s.committedAt = Commit, s.now
		return []Action{{Do: SendCommit}}
	case Tick:
		if s.closing && !s.handing && e.Drain.Verdict != "" {
			s.verdict = e.Drain.Verdict
		}
		switch {
		case s.overdue() && !s.limits.Force && !s.loading:
			return s.fail(s.timedOut())
		case s.handing && !s.ready && s.now-s.handingAt >= commitLimit:
			return s.fail(fmt.Errorf("the destination has not taken the images within %v", commitLimit))
		case s.sending && s.sent && s.now-s.sentAt >= commitLimit:
			return s.fail(fmt.Errorf("the destination has not taken the last of memory within %v", commitLimit))
		case s.loading && s.tooLate(s.trip):
			return s.lateLoad()
		case s.loading && s.now-s.loadingAt >= commitLimit:
			return s.fail(fmt.Errorf("the destination has not loaded the state within %v", commitLimit))
		case s.sending && s.tooLate(stateTime+2*s.trip):
			return s.goOn("the last of memory and state")
		}
	}
	return nil
}

func (s *Source) sendLast() []Action {
	s.sending, s.sent = true, false
	return []Action{{Do: SendLast}}
}

// tooLate reports whether the guest would run too late at the destination if that took so much longer.
func (s *Source) tooLate(rest time.Duration) bool {
	return !s.limits.Offline && !s.forced && s.now+rest > min(s.stoppedAt+s.limits.Downtime, s.until)
}

// goOn gives up a stop whose bound comes before the guest could run: back to Hold and out of it.
func (s *Source) goOn(cause string) []Action {
	s.retry(cause)
	s.phase, s.stopped, s.leaving = Hold, false, true
	return []Action{{Do: ResumeGuest}, {Do: TakeBack}}
}

// lateLoad is goOn when the state was sent. If it happens more than once, and loading alone takes longer than there is room for, it is the end.
func (s *Source) lateLoad() []Action {
	took := s.now - s.loadingAt
	if s.lates == 0 || took < s.late {
		s.late = took
	}
	s.lates++
	if s.unavoidable() >= s.room() {
		return s.fail(s.slowLoad())
	}
	s.loading = false
	return append(s.goOn("loading the state"), Action{Do: SendPass})
}

// slowLoad names the limit that was first.
func (s *Source) slowLoad() error {
	limit := fmt.Sprintf("--downtime %v", s.limits.Downtime)
	if s.until < s.stoppedAt+s.limits.Downtime {
		limit = fmt.Sprintf("--stall %v leaves for it", s.limits.Stall)
	}
	return fmt.Errorf("loading the state took the destination longer than %s: allow more", limit)
}
