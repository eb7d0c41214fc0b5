package cli

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/machine"
)

// controlled is a machine as its control socket sees it.
type controlled struct {
	*machine.Machine
	name   string
	log    *slog.Logger
	vcpus  int
	memory uint64 // bytes
	disks  hotplug
}

// hotplug changes the disks of a machine that runs.
type hotplug interface {
	AddDisk(ctx context.Context, d machine.Disk) (id string, err error)
	RemoveDisk(ctx context.Context, id string) error
	ResizeDisk(ctx context.Context, id string, size uint64) error
}

var _ control.VM = controlled{}

func newControlled(m *machine.Machine, name string, cfg machine.Config) controlled {
	return controlled{Machine: m, name: name, log: cfg.Log, vcpus: cfg.CPUs, memory: cfg.Memory, disks: m}
}

func (v controlled) Info() control.Info {
	state, why := v.State()
	return control.Info{State: state.String(), Reason: why, Migrating: v.Migrating(), VCPUs: v.vcpus, Memory: v.memory, Disks: v.ids()}
}

func (v controlled) ids() []string {
	ids := []string{}
	for _, d := range v.Disks() {
		ids = append(ids, d.ID)
	}
	return ids
}

func (v controlled) Pause(ctx context.Context) error { return inTime(v.Machine.Pause(ctx)) }
func (v controlled) Resume(force bool) error {
	if force {
		return inTime(v.Machine.ResumeForced())
	}
	return inTime(v.Machine.Resume())
}
func (v controlled) PowerButton() error { return inTime(v.Machine.PowerButton()) }
func (v controlled) Kill()              { v.Stop() }

// inTime words the error of a machine without a guest.
func inTime(err error) error {
	switch {
	case errors.Is(err, machine.ErrNotRunning):
		return control.Refuse(http.StatusConflict, "the guest is just starting or ending; run this again")
	case errors.Is(err, machine.ErrMigrating):
		return control.Refuse(http.StatusConflict, "the guest is being migrated; wait for the end of that, or cancel it")
	}
	return err
}

func (v controlled) AddDisk(ctx context.Context, keys, dir string) (string, error) {
	d, err := parseKeys(keys)
	if err != nil {
		return "", control.Refuse(http.StatusBadRequest, "disk %s: %w", keys, err)
	}
	if !filepath.IsAbs(d.Path) {
		if !filepath.IsAbs(dir) {
			return "", control.Refuse(http.StatusBadRequest, "disk %s: give an absolute path, or the directory it is relative to", keys)
		}
		d.Path = filepath.Join(dir, d.Path)
	}
	if slices.Contains(v.ids(), d.ID) {
		return "", control.Refuse(http.StatusConflict, "disk %s: the id %s is another disk's already; give this one another with id=NAME", keys, d.ID)
	}
	id, err := v.disks.AddDisk(ctx, d)
	return id, v.changed(err)
}

func (v controlled) RemoveDisk(ctx context.Context, id string) error {
	if err := v.hasDisk(id); err != nil {
		return err
	}
	err := v.disks.RemoveDisk(ctx, id)
	if paused := (*machine.PausedError)(nil); errors.As(err, &paused) {
		reason := ""
		if paused.Reason != "" {
			reason = " (" + paused.Reason + ")"
		}
		return control.Refuse(http.StatusConflict, "%s is paused%s, so that its guest can't let go of disk %s; run `ebb resume %s` before", v.name, reason, id, v.name)
	}
	return v.changed(err)
}

func (v controlled) ResizeDisk(ctx context.Context, id string, size uint64) error {
	if err := v.hasDisk(id); err != nil {
		return err
	}
	if err := checkDiskSize(size); err != nil {
		return control.Refuse(http.StatusBadRequest, "disk %s: %w", id, err)
	}
	return v.changed(v.disks.ResizeDisk(ctx, id, size))
}

func (v controlled) hasDisk(id string) error {
	if !slices.Contains(v.ids(), id) {
		return control.Refuse(http.StatusNotFound, "there is no disk %.64q; `ebb stats` lists them", id)
	}
	return nil
}

// changed is how a change of the disks went: what was possible to ask for and
// doesn't work is a conflict with what there is, unless nobody wants it any more.
func (v controlled) changed(err error) error {
	if refused := (*control.Error)(nil); err == nil || errors.As(err, &refused) || errors.Is(err, context.Canceled) {
		return err
	}
	return control.Refuse(http.StatusConflict, "%w", inTime(err))
}

// Stats collects the figures of the engine and of its disks.
func (v controlled) Stats() control.Stats {
	e := v.EngineStats()
	s := control.Stats{
		Engine: control.EngineStats{
			Kind: e.Engine.String(), Capacity: e.Capacity, Demand: e.Demand, InFlight: e.InFlight,
			Lent: e.Lent, WrittenOff: e.WrittenOff, Enters: e.Enters,
		},
		Disks: []control.DiskStats{},
	}
	for _, d := range v.DiskStats() {
		s.Disks = append(s.Disks, diskStats(d))
	}
	return s
}

func diskStats(p machine.DiskStats) control.DiskStats {
	windows := map[string]int{}
	for c, n := range p.Windows {
		if n != aio.Unlimited {
			windows[aio.Cause(c).String()] = n
		}
	}
	return control.DiskStats{
		ID: p.ID, Lost: p.Lost, Demand: p.Demand, InFlight: p.InFlight, Window: bound(p.Window), Windows: windows,
		Reserve: p.Reserve, Share: p.Share, Lent: max(p.InFlight-p.Share, 0), WrittenOff: p.WrittenOff, Kept: p.Kept,
		GraceP95: p.Grace.P95,
		Read:     classStats(p.Read), Write: classStats(p.Write), Long: classStats(p.Long),
	}
}

func classStats(c aio.ClassStats) control.ClassStats {
	return control.ClassStats{Requests: c.Requests, Bytes: c.Bytes, Errors: c.Errors, Latency: control.Latency(c.Latency)}
}

// bound is a window without aio's number for none.
func bound(n int) *int {
	if n == aio.Unlimited {
		return nil
	}
	return &n
}

// endText is what a run's result is called by those who wait for it.
func endText(end machine.End, err error) string {
	if err != nil {
		return machine.End(0).String()
	}
	return end.String()
}
