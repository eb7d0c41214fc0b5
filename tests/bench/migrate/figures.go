package main

import (
	"errors"
	"time"

	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// figures are what one migration was like. Durations are nanoseconds in JSON.
type figures struct {
	// The guest's own: the largest of its lines, around the migration and in the control window before.
	Gap, ControlGap         time.Duration
	GapAt                   time.Duration // when the guest said so, since the beginning
	SwitchGap               time.Duration // of the last line at the source and those at the destination
	Latency, ControlLatency time.Duration
	Before                  float64       // requests a second in the control window
	Lost                    time.Duration // that the guest's clock stood still, by the host's
	Plain                   float64       // bytes a second of a plain copy, just before; 0: not measured

	Own own
}

// own is what the VMM says of it.
type own struct {
	Total, Downtime time.Duration
	Sent            uint64 // bytes of memory, on the wire
	// The rest is ebb's.
	Split    migration.Downtime
	Held     time.Duration // I/O
	Ebb      time.Duration // in EBB
	EbbRate  float64       // requests a second in EBB
	EbbRated bool          // it was long enough for that
	InFlight int           // when the vCPUs stopped
	Retries  []string
	Phases   []migration.PhaseTime
	Rate     float64 // bytes of memory a second in the first pass
	Passes   int
	Throttle int // percent by which the guest was slowed down at the end
}

// blackout is how long the guest stood: as far as its own clock saw it, and what that lost.
func (f figures) blackout() time.Duration { return f.SwitchGap + max(0, f.Lost) }

// settle is how long the guest is watched after a migration.
const settle = 1500 * time.Millisecond

// measure reads the guest's lines. Those that were complete between begin and end+settle are around
// the migration, and so is the first after its end, however late; those from control to begin are beside it.
func measure(lines []moving.Line, control, begin, end time.Time) (f figures, err error) {
	var before, after []moving.Line
	requests, took := 0.0, 0.0
	for i, s := range lines {
		switch {
		case s.Host.Before(control):
		case s.Host.Before(begin):
			before = append(before, s)
			f.ControlGap, f.ControlLatency = max(f.ControlGap, s.Gap), max(f.ControlLatency, s.Max)
			if i > 0 {
				d := (s.At - lines[i-1].At).Seconds()
				requests, took = requests+s.IOPS*d, took+d
			}
		case s.Host.Before(end.Add(settle)), len(after) == 0:
			f.Latency = max(f.Latency, s.Max)
			if s.Gap > f.Gap {
				f.Gap, f.GapAt = s.Gap, s.Host.Sub(begin)
			}
			if lines[min(i+1, len(lines)-1)].Side == lines[len(lines)-1].Side {
				f.SwitchGap = max(f.SwitchGap, s.Gap)
			}
			if s.Host.After(end) {
				after = append(after, s)
			}
		}
	}
	if took == 0 || len(after) == 0 {
		return f, errors.New("the guest said nothing before or after the migration")
	}
	f.Before = requests / took
	f.Lost = ahead(after) - ahead(before)
	return f, nil
}

// ahead is by how much the host's clock is ahead of the guest's, with an unknown constant: by the line that was
// least on its way.
func ahead(lines []moving.Line) time.Duration {
	least := time.Duration(1<<63 - 1)
	for _, s := range lines {
		least = min(least, time.Duration(s.Host.UnixNano())-s.At)
	}
	return least
}

// ebbsOwn takes what is of interest from a report of ebb's.
func ebbsOwn(r *migration.Report) own {
	o := own{
		Total: r.Total, Downtime: r.Downtime.Total, Split: r.Downtime, Held: r.Held,
		InFlight: r.InFlight, Retries: r.Retries, Phases: r.Phases,
		Sent: r.Memory.Bytes, Passes: r.Memory.Passes, Throttle: r.Throttle,
	}
	if len(r.Passes) > 0 && r.Passes[0].Took > 0 {
		o.Rate = float64(r.Passes[0].Bytes) / r.Passes[0].Took.Seconds()
	}
	for i, p := range r.Phases {
		if p.Phase == migration.Ebb.String() && i+1 < len(r.Phases) {
			o.Ebb += r.Phases[i+1].At - p.At
		}
	}
	var requests float64
	var took time.Duration
	for i := 1; i < len(r.Samples); i++ { // not what was done in a HOLD between
		if a, b := &r.Samples[i-1], &r.Samples[i]; a.Phase == migration.Ebb.String() && b.Phase == a.Phase && len(b.Disks) > 0 {
			requests += float64(b.Disks[0].Completed - a.Disks[0].Completed)
			took += b.At - a.At
		}
	}
	const enough = 200 * time.Millisecond
	if o.EbbRated = took >= enough; o.EbbRated {
		o.EbbRate = requests / took.Seconds()
	}
	return o
}
