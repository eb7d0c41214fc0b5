package migration

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-vmm/ebb/migration/ram"
)

// Report is what a migration was like. Durations are nanoseconds in JSON.
type Report struct {
	Total    time.Duration `json:"total_ns"`
	Downtime Downtime      `json:"downtime"`
	Held     time.Duration `json:"io_held_ns"`        // from the first disk's closing until the guest ran at the destination
	InFlight int           `json:"in_flight_at_stop"` // requests when the vCPUs were stopped
	Retries  []string      `json:"retries,omitempty"` // why each hold that was missed was
	Throttle int           `json:"throttle_percent"`  // by how much the vCPUs were slowed down, the last time
	Memory   Memory        `json:"memory"`
	// ClockAhead is by how much the destination's clock is ahead of the source's, 0 if too little to be known. The guest's
	// clocks go on as if it were 0.
	ClockAhead time.Duration `json:"clock_ahead_ns"`
	Phases     []PhaseTime   `json:"phases"`
	Passes     []PassReport  `json:"passes"`
	Samples    []Sample      `json:"samples"`
	Error      string        `json:"error,omitempty"`

	stopping, stoppedAt, sentAt, loadedAt time.Duration // since the beginning
	closingAt                             time.Duration
	resume                                time.Duration

	sampled  time.Duration // the latest of Samples
	interval time.Duration // between two of them

	ram      sync.Mutex // held while a pass runs, which looks at the guest's memory, and guards sourceDriver.sender for who looks in from elsewhere
	lastTook time.Duration
	saved    time.Duration
}

// Downtime is how long no vCPU ran, and what took the time.
type Downtime struct {
	Total   time.Duration `json:"total_ns"`
	Stop    time.Duration `json:"stop_ns"`     // until the last vCPU stood
	Drain   time.Duration `json:"drain_ns"`    // requests in flight, and the images' hand-over: only with --drain off
	LastRAM time.Duration `json:"last_ram_ns"` // the last pass over memory
	State   time.Duration `json:"state_ns"`    // saving, sending and loading it
	Commit  time.Duration `json:"commit_ns"`   // from the later of LOADED and the last MARK to RUNNING, there and back
	Resume  time.Duration `json:"resume_ns"`   // of that, until the vCPUs were let go
}

// Memory is what was sent of it.
type Memory struct {
	Bytes  uint64 `json:"bytes"` // on the wire
	Pages  uint64 `json:"pages"`
	Zeroes uint64 `json:"zero_pages"`
	Passes int    `json:"passes"`
}

// PhaseTime is when a phase began.
type PhaseTime struct {
	Phase string        `json:"phase"`
	At    time.Duration `json:"at_ns"`
	// InFlight is the requests in flight at that time.
	InFlight int `json:"in_flight"`
}

// PassReport is one pass over memory.
type PassReport struct {
	At    time.Duration `json:"at_ns"` // its end
	Bytes uint64        `json:"bytes"`
	Left  uint64        `json:"left_bytes"`
	Took  time.Duration `json:"took_ns"`
}

// Sample is what the disks are like at a time.
type Sample struct {
	At    time.Duration `json:"at_ns"`
	Phase string        `json:"phase"`
	Disks []DiskSample  `json:"disks"`
}

// DiskSample is one disk's part.
type DiskSample struct {
	ID        string        `json:"id"`
	InFlight  int           `json:"in_flight"`
	Window    *int          `json:"window"` // nil: no bound
	Completed uint64        `json:"completed"`
	Drain     time.Duration `json:"drain_ns"` // expected
}

// Progress is how a migration goes, for who watches it.
type Progress struct {
	Phase    string        `json:"phase"`
	Elapsed  time.Duration `json:"elapsed_ns"`
	Left     uint64        `json:"left_bytes"`
	Sent     uint64        `json:"sent_bytes"`
	Rate     float64       `json:"rate_bytes_per_s"`
	Dirty    float64       `json:"dirty_bytes_per_s"`
	Expected time.Duration `json:"expected_downtime_ns"`
	Throttle int           `json:"throttle_percent"`
	Retries  int           `json:"retries"`
	Disks    []DiskSample  `json:"disks"`
	Verdict  string        `json:"verdict,omitempty"`
}

func inFlight(disks []DiskSample) (n int) {
	for _, k := range disks {
		n += k.InFlight
	}
	return n
}

func (r *Report) enter(d *sourceDriver, p Phase, at time.Duration) {
	disks := d.drains.samples()
	r.Phases = append(r.Phases, PhaseTime{p.String(), at, inFlight(disks)})
	if p == Stop {
		r.InFlight = inFlight(disks)
	}
}

func (r *Report) event(d *sourceDriver, e Event) {
	switch e.Kind {
	case Stopped:
		r.stoppedAt = e.Now
	case Loaded:
		r.loadedAt = e.Now
	case Runs:
		r.finished(e.Now)
	}
}

func (r *Report) closing(d *sourceDriver) { r.closingAt = d.now() }

// passed notes a pass. r.ram is held.
func (r *Report) passed(d *sourceDriver, p ram.Result) {
	if len(r.Passes) == maxPasses { // the first and the latest stay
		r.Passes = slices.Delete(r.Passes, maxPasses/2, maxPasses/2+1)
	}
	r.Passes = append(r.Passes, PassReport{d.now(), p.Bytes, p.Left, p.Took})
}

// Bounds on a report, in entries.
const (
	maxPasses  = 512
	maxSamples = 2048
)

// sample notes what the disks are like. When there is no room any more every other one goes.
func (r *Report) sample(s Sample) {
	if s.At-r.sampled < r.interval {
		return
	}
	if len(r.Samples) == maxSamples {
		for i := range maxSamples / 2 {
			r.Samples[i] = r.Samples[2*i]
		}
		r.Samples = r.Samples[:maxSamples/2]
		r.interval = max(2*r.interval, 2*tickTime)
	}
	r.Samples, r.sampled = append(r.Samples, s), s.At
}

// last notes the last one. r.ram is held.
func (r *Report) last(d *sourceDriver, p ram.Result, saved time.Duration) {
	r.passed(d, p)
	r.sentAt, r.lastTook, r.saved = d.now(), p.Took, saved
}

func (r *Report) finished(now time.Duration) {
	loaded := max(r.loadedAt, r.sentAt) // it may be told before the other
	r.Downtime = Downtime{
		Total:   now - r.stopping,
		Stop:    r.stoppedAt - r.stopping,
		Drain:   r.sentAt - r.lastTook - r.saved - r.stoppedAt,
		LastRAM: r.lastTook,
		State:   r.saved + loaded - r.sentAt,
		Commit:  now - loaded,
		Resume:  r.resume,
	}
	r.Held = now - r.closingAt
}

// finish fills in what is known at the end. r.ram is held.
func (r *Report) finish(d *sourceDriver) {
	r.Total = d.now()
	r.Retries = d.core.Retries()
	if err := d.core.Err(); err != nil {
		r.Error = err.Error()
	}
	r.ClockAhead = d.clockAhead
	if d.sender != nil {
		s := d.sender.Sent()
		r.Memory = Memory{s.Bytes, s.Pages, s.Zeroes, s.Passes}
	}
}

// Line is the whole thing in one line.
func (r *Report) Line() string {
	d := r.Downtime
	parts := []string{"stop " + ms(d.Stop)}
	if d.Drain >= 100*time.Microsecond {
		parts = append(parts, "drain "+ms(d.Drain))
	}
	parts = append(parts, "last RAM "+ms(d.LastRAM), "state "+ms(d.State), "commit "+ms(d.Commit), "resume "+ms(d.Resume))
	return fmt.Sprintf("migrated in %.1f s · downtime %s ms (%s) · I/O held %.0f ms · in flight at stop %d",
		r.Total.Seconds(), ms(d.Total), strings.Join(parts, " · "), float64(r.Held)/1e6, r.InFlight)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e6) }

// show samples the disks, and tells who watches.
func (d *sourceDriver) show() {
	now := d.now()
	phase := d.core.Phase()
	samples := d.drains.samples()
	if phase >= Ebb {
		d.report.sample(Sample{now, phase.String(), samples})
	}
	if now-d.shown < progressTime || d.o.Progress == nil {
		return
	}
	d.shown = now
	d.o.Progress(d.progress(samples))
}

func (d *sourceDriver) progress(samples []DiskSample) Progress {
	c := d.core
	d.mu.Lock()
	awaited := d.awaited
	d.mu.Unlock()
	if awaited != "" { // nothing else matters
		return Progress{Phase: c.Phase().String(), Elapsed: d.now(), Verdict: awaited}
	}
	p := Progress{
		Phase: c.Phase().String(), Elapsed: d.now(), Left: c.left, Rate: c.rate, Expected: c.Expected(),
		Throttle: c.Throttled(), Retries: len(c.Retries()), Disks: samples, Verdict: c.verdict,
	}
	if d.report.ram.TryLock() {
		if d.sender != nil {
			p.Sent = d.sender.Sent().Bytes
		}
		if n := len(d.report.Passes); n > 0 && d.report.Passes[n-1].Took > 0 {
			last := d.report.Passes[n-1]
			p.Dirty = float64(last.Left) / last.Took.Seconds()
		}
		d.report.ram.Unlock()
	}
	return p
}
