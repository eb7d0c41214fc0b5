package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/bench/harness"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
	"github.com/ebb-vmm/ebb/tests/bench/nullblk"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

type labOptions struct {
	names []string // of reals
	moves int      // migrations of each
	ebb   string
	raw   string // the file with all that was measured
	doc   string
}

// record is everything that was measured in the lab, by names of reals.
type record struct {
	Host   string
	Trials map[string][]trial
}

// load returns what there is, which may be nothing.
func load(path string) (*record, error) {
	r := &record{Trials: map[string][]trial{}}
	_, err := harness.Load(path, r)
	return r, err
}

// parseNames reads the value of -shapes.
func parseNames(list string) (names []string, err error) {
	known := func(name string) bool {
		return slices.ContainsFunc(reals, func(r real) bool { return r.name == name })
	}
	if list == "" {
		for _, r := range reals {
			names = append(names, r.name)
		}
		return names, nil
	}
	for name := range strings.SplitSeq(list, "/") {
		if !known(name) {
			return nil, fmt.Errorf("-shapes %s: there is no %q", list, name)
		}
		names = append(names, name)
	}
	return names, nil
}

// run measures in the lab and writes the table.
func (o labOptions) run(ctx context.Context, render bool) error {
	if lab.InLab() {
		return o.measure(ctx)
	}
	if !render {
		if err := o.enter(ctx); err != nil {
			return err
		}
	}
	rec, err := load(o.raw)
	if err != nil {
		return err
	}
	return rec.publish(o.doc)
}

func (o labOptions) enter(ctx context.Context) error {
	r, err := load(o.raw)
	if err != nil {
		return err
	}
	r.Host = harness.Describe(ctx)
	if err := harness.Save(o.raw, r); err != nil {
		return err
	}
	images, err := os.MkdirTemp("", "bench-drain-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(images)
	l := lab.Options{Modules: []string{"dm-mod", "dm-delay"}, Deadline: time.Hour, Shares: []string{filepath.Dir(o.raw)}}
	for i, kind := range drives {
		spec := lab.LatentDrive(nullblk.DeviceMiB<<20, latentTime.Nanoseconds())
		if kind == smoothDrive {
			file := filepath.Join(images, fmt.Sprint(i))
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				return err
			}
			if err := os.Truncate(file, nullblk.DeviceMiB<<20); err != nil {
				return err
			}
			spec = lab.SlowDrive(file, slowIOPS)
		}
		l.Drives = append(l.Drives, spec)
	}
	return nullblk.RunInLab(ctx, l)
}

// measure is run in the lab. What was measured of the same VMs before gives way.
func (o labOptions) measure(ctx context.Context) error {
	build, err := guest.BuildDir()
	if err != nil {
		return err
	}
	kernel, err := guest.BuildDiskBench(ctx, build)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-drain-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rec, err := load(o.raw)
	if err != nil {
		return err
	}
	g := &rig{vms: moving.EBB{Host: &moving.Host{Dir: dir}, Program: o.ebb}, kernel: kernel}
	// The lab's emulator takes several times as long for code that it sees for the first time.
	if _, err := g.visit(ctx, &reals[0], reals[0].disks, 1, false); err != nil {
		return err
	}
	var failed error
	for i := range reals {
		r := &reals[i]
		if !slices.Contains(o.names, r.name) {
			continue
		}
		trials, err := g.try(ctx, r, o.moves)
		for k := range trials {
			fmt.Printf("%-16s %s\n", r.name, trials[k].String())
		}
		if err != nil {
			failed = errors.Join(failed, err) // the others may do
			continue
		}
		rec.Trials[r.name] = trials
		if err := harness.Save(o.raw, rec); err != nil {
			return err
		}
	}
	return failed
}

// try is all that is measured of one VM.
func (g *rig) try(ctx context.Context, r *real, moves int) (trials []trial, err error) {
	if r.hang != never {
		return g.visit(ctx, r, r.disks, 1, false)
	}
	if !r.late {
		if trials, err = g.visit(ctx, r, r.disks, moves, false); err != nil {
			return trials, err
		}
	}
	kept, err := g.visit(ctx, r, append(r.disks[:len(r.disks):len(r.disks)], companion), 1, true)
	return append(trials, kept...), err
}

// String is a line for who waits for the table.
func (t *trial) String() string {
	text, rep := "", t.Report
	for _, p := range rep.Phases {
		text += fmt.Sprintf("  %s %.2f", p.Phase, p.At.Seconds())
	}
	text += fmt.Sprintf("  held %.0f ms  in flight %d  missed %d %v  longest request %.0f ms (before %.0f)  gap %.0f (%.0f)  %s",
		millisOf(rep.Held), rep.InFlight, len(rep.Retries), rep.Retries, millisOf(t.Latency), millisOf(t.ControlLat), millisOf(t.Gap), millisOf(t.ControlGap), t.Failed)
	for i := range t.Before {
		n, took := t.inEBB(i)
		text += fmt.Sprintf("\n    %s before %.0f  EBB %.0f in %.2f s", diskID(i), t.Before[i], n/max(took.Seconds(), 1e-9), took.Seconds())
		if t.After != nil {
			text += fmt.Sprintf("  after %.0f", t.After[i])
		}
	}
	return text
}

func millisOf(d time.Duration) float64 { return float64(d) / 1e6 }

// rate is that in EBB by that before, of n disks the worst, and which one that is.
func (t *trial) rate(first, n int) (worst float64, disk int) {
	worst = math.Inf(1)
	for i := first; i < first+n; i++ {
		if requests, took := t.inEBB(i); took > 0 {
			if rate := requests / took.Seconds() / t.usual(i); rate < worst {
				worst, disk = rate, i
			}
		}
	}
	return worst, disk
}

// rateOfAll is the same of all of them together; below 0: EBB was too short.
func (t *trial) rateOfAll(first, n int) float64 {
	in, usual := 0.0, 0.0
	for i := first; i < first+n; i++ {
		requests, took := t.inEBB(i)
		if took < period {
			return -1
		}
		in, usual = in+requests/took.Seconds(), usual+t.usual(i)
	}
	return in / usual
}

// usual is a disk's rate without migration.
func (t *trial) usual(disk int) float64 {
	if t.Before[disk] == 0 && t.After != nil {
		return t.After[disk]
	}
	return t.Before[disk]
}
