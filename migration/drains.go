package migration

import (
	"fmt"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
)

// drainShare is the part of --stall that a disk's drain may take; the rest is for its sync, the
// hand-over and the downtime.
const drainShare = 0.6

// drains applies a drain controller to a guest's disks. The driver's loop uses it.
type drains struct {
	policy  drain.Policy
	control *drain.Controller
	disks   []Disk
	windows []int // as last set
	last    []drain.Sample
	fixed   bool // whatever the controller says
}

func newDrains(p drain.Policy, stall time.Duration, disks []Disk) *drains {
	d := &drains{policy: p, disks: disks, windows: make([]int, len(disks)), last: make([]drain.Sample, len(disks))}
	var names []string
	for i, k := range disks {
		names = append(names, k.ID())
		d.windows[i] = drain.Unlimited
	}
	d.control = drain.New(drain.Config{Policy: p, Budget: time.Duration(drainShare * float64(stall)), Disks: names})
	return d
}

// look samples the disks, sets their windows, and says how far they are.
func (d *drains) look(now time.Duration) Drain {
	for i, k := range d.disks {
		d.last[i] = k.Sample()
	}
	d.set(d.control.Step(now, d.last))
	state := d.control.State()
	say := Drain{
		Ready:   d.control.Ready(),
		Drained: state == drain.Drained,
		Missed:  state == drain.BackingOff,
		Off:     state == drain.Ebbing,
	}
	if say.Verdict = verdict(d.control.Verdict()); say.Verdict == "" && d.fixed {
		say.Verdict = d.busy()
	}
	say.Kept = kept(d.disks)
	return say
}

// busy names the disks with requests in flight, once all are closed.
func (d *drains) busy() string {
	var all []string
	for i, k := range d.disks {
		if n := d.last[i].InFlight; n > 0 {
			all = append(all, fmt.Sprintf("disk %s has %d requests in flight while the vCPUs stand", k.ID(), n))
		}
	}
	return strings.Join(all, "; ")
}

// kept names the first disk with requests that can't migrate.
func kept(disks []Disk) error {
	for _, k := range disks {
		if err := k.Kept(); err != nil {
			return err
		}
	}
	return nil
}

// verdict names the disks that can't be drained, and the --stall that they need.
func verdict(err error) string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return ""
	}
	var all []string
	for _, err := range joined.Unwrap() {
		if s, ok := err.(*drain.Shortfall); ok {
			const step = 10 * time.Millisecond
			stall := (time.Duration(float64(s.Budget)/drainShare) + step - 1).Truncate(step)
			all = append(all, s.Sentence("--stall "+stall.String()))
		}
	}
	return strings.Join(all, "; ")
}

// hold closes admission, disk by disk. After a look that was Ready.
func (d *drains) hold() { d.set(d.control.Hold()) }

func (d *drains) set(windows []int) {
	if d.policy == drain.Off || d.fixed {
		return
	}
	for i, n := range windows {
		if n != d.windows[i] {
			d.windows[i] = n
			d.disks[i].SetWindow(n)
		}
	}
}

// close closes all, and they stay so until open.
func (d *drains) close() {
	d.fixed = true
	for _, k := range d.disks {
		k.SetWindow(0)
	}
}

// open ends a hold.
func (d *drains) open() {
	d.fixed = false
	if d.control.State() != drain.BackingOff {
		d.set(d.control.Open())
		d.control.Ebb()
	}
}

// free ends the migration: whoever closed them, disks that may are open as before it, and the controller has no say any more.
func (d *drains) free(may func(Disk) bool) {
	d.fixed = true
	for i, k := range d.disks {
		if may(k) {
			d.windows[i] = drain.Unlimited
			k.SetWindow(drain.Unlimited)
		}
	}
}

// samples is what the disks are like, as of the last look.
func (d *drains) samples() []DiskSample {
	list := make([]DiskSample, len(d.disks))
	for i, k := range d.disks {
		s := d.last[i]
		list[i] = DiskSample{ID: k.ID(), InFlight: s.InFlight, Completed: s.Completed, Drain: s.Going.Length}
		if w := d.windows[i]; w != drain.Unlimited {
			list[i].Window = &w
		}
	}
	return list
}
