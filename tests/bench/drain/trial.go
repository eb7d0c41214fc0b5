package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

const (
	realStall    = 250 * ms // of which the drain has 150, as in the simulator
	realDowntime = 500 * ms // the lab takes ten times as long for all but the disks
	period       = 400 * ms // between the guest's lines
	control      = 3 * time.Second
	settle       = 2 * time.Second
	keptFor      = 10 * time.Second // --timeout of migrations that can't succeed
	lateBy       = 9 * time.Second  // of the guest's time
	startLimit   = 2 * time.Minute
)

// trial is one migration of a VM. Durations are nanoseconds in JSON.
type trial struct {
	Kept   bool   // in EBB by a companion that can't be drained
	Failed string // what ebb migrate said in the end; the guest then went on at the source

	Before, After []float64 // each disk's requests a second: in the control window, and after EBB if it failed
	Latency       time.Duration
	ControlGap    time.Duration // of the control window, as the next; the guest's own, as those beside them
	ControlLat    time.Duration
	Gap           time.Duration
	Report        *migration.Report
	Lines         []shown // around it
	Ended         time.Duration
}

// shown is a line of the guest's, at a time since the migration began.
type shown struct {
	At   time.Duration
	IOPS float64
	Max  time.Duration
}

// rig is what all trials have in common.
type rig struct {
	vms    moving.EBB
	kernel string
}

// options of the VM, less its disks.
func (g *rig) run(ctx context.Context, r *real, d *devices) (*moving.VM, error) {
	late := ""
	if r.late {
		late = fmt.Sprintf("late=%d", lateBy.Milliseconds())
	}
	queueSize := 1
	for queueSize < 3*r.depth {
		queueSize *= 2
	}
	options := []string{"--kernel", g.kernel, "--memory", "64M",
		"--append", fmt.Sprintf("mode=write depth=%d forever period=%d %s %s", r.depth, period.Milliseconds(), r.guest, late)}
	for i, path := range d.paths {
		options = append(options, "--disk", fmt.Sprintf("path=%s,id=%s,direct,queue-size=%d", path, diskID(i), queueSize))
	}
	v, err := g.vms.Run(ctx, d.place(), options)
	if err != nil {
		return nil, err
	}
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if _, err := v.Ready(starting); err != nil {
		v.Stop()
		return nil, err
	}
	return v, nil
}

func diskID(i int) string { return fmt.Sprintf("vd%c", 'a'+i) }

func (d *devices) place() moving.Place {
	at := moving.Here
	at.Command = d.cgroup.Command()
	return at
}

// receive waits for it.
func (g *rig) receive(ctx context.Context, d *devices) (*moving.VM, error) {
	var options []string
	for i, path := range d.paths {
		options = append(options, "--disk-path", diskID(i)+"="+path)
	}
	return g.vms.Receive(ctx, d.place(), options)
}

// visit boots a VM and migrates it n times, from one process to the next; kept says that the companion is one of its disks.
func (g *rig) visit(ctx context.Context, r *real, sources []source, n int, kept bool) (trials []trial, err error) {
	d, err := makeDevices(r.depth, r.tags, sources)
	if err != nil {
		return nil, err
	}
	defer d.remove()
	for _, path := range d.paths { // the VM before may still have it
		if err := moving.Free(ctx, path); err != nil {
			return nil, err
		}
	}
	v, err := g.run(ctx, r, d)
	if err != nil {
		return nil, err
	}
	vms := []*moving.VM{v}
	defer func() {
		if d.hangs != nil {
			err = errors.Join(err, d.hangs.Resume()) // a process with requests in flight can't end
		}
		for _, v := range vms {
			v.Stop()
		}
		if err != nil {
			err = fmt.Errorf("%s: %w\n%s", r.name, err, vms[len(vms)-1].Log.String())
		}
	}()
	for range n {
		to, err := g.receive(ctx, d)
		if to != nil {
			vms = append(vms, to)
		}
		if err != nil {
			return trials, err
		}
		t, err := g.migrate(ctx, r, d, vms, kept)
		if err != nil {
			return trials, err
		}
		trials = append(trials, t)
		if t.Failed != "" {
			break
		}
	}
	return trials, nil
}

// migrate moves the guest from the last but one to the last.
func (g *rig) migrate(ctx context.Context, r *real, d *devices, vms []*moving.VM, kept bool) (t trial, err error) {
	from, to := vms[len(vms)-2], vms[len(vms)-1]
	t.Kept = kept
	watched := time.Now()
	if t.Before, err = g.rates(ctx, from); err != nil {
		return t, err
	}
	if r.hang != never {
		if err := d.hangs.Hang(); err != nil {
			return t, err
		}
	}
	if r.hang == aWhile {
		defer time.AfterFunc(hangTime, func() { _ = d.hangs.Resume() }).Stop()
	}
	timeout := time.Minute
	if kept || r.hang == forGood {
		timeout = keptFor
	}
	begin := time.Now()
	report, failed := g.vms.Migrate(ctx, from, to, []string{"--downtime", realDowntime.String(), "--stall", realStall.String(), "--timeout", timeout.String()})
	end := time.Now()
	if report == nil {
		return t, fmt.Errorf("%w\nsource: %s\ndestination: %s", failed, from.Log.String(), to.Log.String())
	}
	t.Report, t.Ended = report, end.Sub(begin)
	if err := moving.Sleep(ctx, settle+2*period); err != nil {
		return t, err
	}
	if failed != nil {
		t.Failed = failed.Error()[strings.LastIndex(failed.Error(), "ebb: ")+len("ebb: "):]
		if t.After, err = g.rates(ctx, from); err != nil {
			return t, err
		}
	} else {
		from.Stop()
	}
	var sides []*moving.Console
	for _, v := range vms {
		sides = append(sides, &v.Console)
	}
	lines, err := moving.Timeline(sides...)
	if err != nil {
		return t, err
	}
	// A line may be long on its way where the lab is slow. The guest's clock goes on while it moves.
	zero := lines[0].Host
	for _, l := range lines {
		if at := l.Host.Add(-l.At); at.Before(zero) {
			zero = at
		}
	}
	for _, l := range lines {
		switch at := zero.Add(l.At); {
		case at.Before(watched):
			continue
		case at.Before(begin):
			t.ControlLat, t.ControlGap = max(t.ControlLat, l.Max), max(t.ControlGap, l.Gap)
		case at.Before(end.Add(settle)):
			t.Latency, t.Gap = max(t.Latency, l.Max), max(t.Gap, l.Gap)
		}
		t.Lines = append(t.Lines, shown{zero.Add(l.At).Sub(begin), l.IOPS, l.Max})
	}
	return t, nil
}

// rates watches the disks for a while.
func (g *rig) rates(ctx context.Context, v *moving.VM) (all []float64, err error) {
	first, err := g.vms.Stats(ctx, v)
	if err != nil {
		return nil, err
	}
	if err := moving.Sleep(ctx, control); err != nil {
		return nil, err
	}
	last, err := g.vms.Stats(ctx, v)
	if err != nil {
		return nil, err
	}
	for i := range last.Disks {
		a, b := first.Disks[i], last.Disks[i]
		n := b.Read.Requests + b.Write.Requests + b.Long.Requests - a.Read.Requests - a.Write.Requests - a.Long.Requests
		all = append(all, float64(n)/(last.Uptime-first.Uptime))
	}
	return all, nil
}

// inEBB is what a disk did in EBB, in requests a second, and how long that was. What it did not begin to do doesn't count.
func (t *trial) inEBB(disk int) (requests float64, took time.Duration) {
	s := t.Report.Samples
	for i := 1; i < len(s); i++ {
		if s[i].Phase != migration.Ebb.String() || s[i-1].Phase != s[i].Phase || s[i-1].Disks[disk].Completed == 0 {
			continue
		}
		requests += float64(s[i].Disks[disk].Completed - s[i-1].Disks[disk].Completed)
		took += s[i].At - s[i-1].At
	}
	return requests, took
}

// full is the part of EBB in which a disk had as much in flight as its window let it, so that it was the drain that held it back.
func (t *trial) full(disk int) float64 {
	n, full := 0, 0
	for _, s := range t.Report.Samples {
		if s.Phase != migration.Ebb.String() {
			continue
		}
		n++
		if d := s.Disks[disk]; d.Window != nil && d.InFlight >= *d.Window {
			full++
		}
	}
	return float64(full) / float64(max(n, 1))
}
