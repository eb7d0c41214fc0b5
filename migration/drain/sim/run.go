package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
)

const (
	// Budget is what the shapes are made for.
	Budget = 150 * ms

	tick     = 5 * ms
	warm     = 3 * time.Second  // before EBB
	handOver = 20 * ms          // from drained to the windows' opening
	giveUp   = 20 * time.Second // after EBB
)

// Result is what came of one migration.
type Result struct {
	Ready      time.Duration // from EBB to the first time all disks were ready; 0 if never
	EBB        float64       // requests in EBB, relative to the same time without migration; mean of the disks
	Drained    bool
	InFlight   int             // when it was said to be drained
	Drains     []time.Duration // of each HOLD that succeeded or not: the slowest disk's, from closed to empty or reopened
	Missed     int
	MaxLatency time.Duration // request that completed after the first admission closed, until windows were open again
	MaxStall   time.Duration // from a disk's admission closing to its opening
	Reopened   time.Duration // of the ticks in EBB, those with all windows open
	Verdict    string
}

// Point is one tick of one disk.
type Point struct {
	At        time.Duration // since EBB
	State     drain.State
	Window    int
	InFlight  int
	Completed uint64
	Grace     time.Duration // the latest grace period
	Longest   time.Duration // request that completed in this tick
}

// Trace takes every tick of the disks.
type Trace func(disk int, p Point)

// Run migrates a VM of that shape. RAM is ready a random 2 to 4 s after EBB begins. law is nil for the policy's.
func Run(shape *Shape, policy drain.Policy, law func(time.Duration) drain.Law, seed uint64, trace Trace) Result {
	var r Result
	v := shape.vm(seed)
	names := make([]string, len(v.disks))
	for i := range names {
		names[i] = fmt.Sprintf("vd%c", 'a'+i)
	}
	c := drain.New(drain.Config{Policy: policy, Budget: Budget, Disks: names, Law: law})
	rng := rand.New(rand.NewPCG(seed, 0))
	ram := warm + 2*time.Second + time.Duration(rng.Int64N(int64(2*time.Second)))
	samples := make([]drain.Sample, len(v.disks))
	before := make([]uint64, len(v.disks))
	end, reopened := warm+giveUp, false
	for now := tick; now <= end; now += tick {
		v.run(now)
		was := c.State()
		for i, d := range v.disks {
			samples[i] = d.sample(now)
		}
		windows := c.Step(now, samples)
		for i, d := range v.disks {
			d.grace.ended = d.grace.ended[:0]
			d.set(now, windows[i])
			if trace != nil {
				trace(i, Point{now - warm, c.State(), d.window, d.inFlight, d.completed, d.grace.last, d.longest})
			}
			d.longest = 0
		}
		switch {
		case c.State() == drain.Open && now >= warm && !reopened:
			for i, d := range v.disks {
				before[i] = d.completed
			}
			c.Ebb()
		case c.State() == drain.Ebbing:
			if c.Ready() && r.Ready == 0 {
				r.Ready = now - warm
			}
			if err := c.Verdict(); err != nil {
				r.Verdict = err.Error()
			} else if r.Missed == 0 && c.Ready() {
				r.Verdict = ""
			}
			open := true
			for _, d := range v.disks {
				open = open && d.window == drain.Unlimited
			}
			if open {
				r.Reopened += tick
			}
			if c.Ready() && now >= ram {
				if r.EBB == 0 {
					r.EBB = shape.relative(seed, v, before, now)
				}
				windows := c.Hold()
				for i, d := range v.disks {
					d.closedAt, d.emptyAt = 0, 0
					d.set(now, windows[i])
				}
				if policy == drain.Off {
					v.stopped = true
					for _, d := range v.disks {
						d.closedAt, d.slowest = now, 0
					}
				}
			}
		case was == drain.Holding && c.State() == drain.BackingOff:
			r.Missed++
			r.add(v.disks, now)
			v.latency(&r)
		case was == drain.Holding && c.State() == drain.Drained:
			r.Drained = true
			r.add(v.disks, now)
			for _, d := range v.disks {
				r.InFlight += d.inFlight
				r.MaxStall = max(r.MaxStall, now+handOver-d.closedAt)
			}
			v.run(now + handOver)
			v.stopped, reopened = false, true
			now += handOver / tick * tick
			for i, w := range c.Open() {
				v.disks[i].set(now, w)
			}
			end = now + time.Second
		}
	}
	if r.EBB == 0 {
		r.EBB = shape.relative(seed, v, before, end)
	}
	v.latency(&r)
	return r
}

// set sets a window and notes when admission closed.
func (d *disk) set(now time.Duration, window int) {
	if window == 0 && d.window != 0 {
		d.closedAt, d.emptyAt, d.slowest = now, 0, 0
		if d.inFlight == 0 {
			d.emptyAt = now
		}
	}
	d.window = window
}

// add notes how long the slowest disk took from its closing to its last completion, or until now.
func (r *Result) add(disks []*disk, now time.Duration) {
	var longest time.Duration
	for _, d := range disks {
		switch {
		case d.closedAt == 0:
		case d.emptyAt < d.closedAt:
			longest = max(longest, now-d.closedAt)
		default:
			longest = max(longest, d.emptyAt-d.closedAt)
		}
	}
	r.Drains = append(r.Drains, longest)
}

func (v *vm) latency(r *Result) {
	for _, d := range v.disks {
		r.MaxLatency = max(r.MaxLatency, d.slowest)
	}
}

// relative compares what was completed since EBB with a VM that isn't migrated. Disks that do nothing don't count.
func (s *Shape) relative(seed uint64, v *vm, before []uint64, now time.Duration) float64 {
	alone := s.vm(seed)
	alone.run(warm)
	was := make([]uint64, len(before))
	for i, d := range alone.disks {
		was[i] = d.completed
	}
	for t := warm; t <= now; t += tick {
		alone.run(t)
	}
	sum, n := 0.0, 0
	for i, d := range alone.disks {
		if d.completed > was[i] {
			sum += float64(v.disks[i].completed-before[i]) / float64(d.completed-was[i])
			n++
		}
	}
	if n == 0 {
		return 1
	}
	return sum / float64(n)
}
