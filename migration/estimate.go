package migration

import (
	"fmt"
	"slices"
	"time"
)

// Expected is how long the vCPUs would stand if they were stopped now and all disks were drained.
func (s *Source) Expected() time.Duration {
	if s.rate == 0 {
		return 0
	}
	return time.Duration(float64(s.left)/s.rate*1e9) + s.unavoidable()
}

// unavoidable is the part of it that memory has nothing to do with.
func (s *Source) unavoidable() time.Duration {
	state := stateTime
	if s.lates > 1 { // one may have been an accident
		state = max(state, s.late)
	}
	return state + 2*s.trip
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
