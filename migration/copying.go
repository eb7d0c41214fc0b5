package migration

import "time"

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
		wait := s.held()
		if wait > 2*s.limits.Stall { // by a destination that is slow to take or give the images
			wait *= slowBackOff
		}
		s.retryAt = max(s.retryAt, s.now+wait)
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
		next.After = holdPass
		if s.phase == Ebb {
			next.After = s.pause(e)
		}
	}
	return append(acts, next)
}

// pause is the time from a pass in Ebb to the next. It doubles as long as a pass, which sends what was written in the pause before, is short: so will
// be the one that Hold begins with.
func (s *Source) pause(e Event) time.Duration {
	switch short := shortPass * s.limits.Downtime.Seconds(); {
	case s.pausing == 0:
		s.pausing = ebbPass
	case float64(e.Wire) < short*s.rate:
		s.pausing = min(2*s.pausing, ebbPassMost)
	default:
		s.pausing = max(s.pausing/2, ebbPass)
	}
	return s.pausing
}

// tick looks at the time and the disks.
func (s *Source) tick(e Event) []Action {
	if e.Drain.Kept != nil {
		return s.fail(e.Drain.Kept)
	}
	if s.verdict = e.Drain.Verdict; s.verdict == "" {
		s.clear = s.now
	}
	var acts []Action
	if s.overdue() && !s.forced {
		if !s.limits.Force {
			return s.fail(s.timedOut())
		}
		s.forced = true
		if s.phase == Ebb { // it stops after a pass
			acts = append(acts, Action{Do: HurryPass})
		}
	}
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
			return []Action{{Do: HoldDisks}, {Do: HurryPass}}
		}
	case Hold:
		switch {
		case s.leaving:
		case e.Drain.Off && !s.handing:
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
	s.retryAt = s.now + max(min(firstBackOff<<min(s.retries, 10), lastBackOff), s.held())
	s.retries++
}

// held is how long this hold has lasted. The next one is as long in coming, at least: requests that waited for one would wait for both.
func (s *Source) held() time.Duration { return s.now - (s.until - s.limits.Stall) }

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
