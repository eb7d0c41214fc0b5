package cli

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/machine"
	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/ram"
)

// Migrate implements control.VM.
func (v controlled) Migrate(ctx context.Context, m control.Migration, progress func(json.RawMessage)) (json.RawMessage, error) {
	policy, err := drain.ParsePolicy(m.Drain)
	if err != nil {
		return nil, control.Refuse(http.StatusBadRequest, "%w", err)
	}
	if min(m.Downtime, m.Stall, m.Timeout) <= 0 || m.Streams < 1 || m.Streams > migration.MaxStreams {
		return nil, control.Refuse(http.StatusBadRequest, "downtime, stall, timeout or streams of the migration are not possible")
	}
	out, err := v.BeginMigration()
	if err != nil {
		return nil, control.Refuse(http.StatusConflict, "%s can't be migrated: %w", v.name, inTime(err))
	}
	defer out.End()
	report, err := migration.Send(ctx, migration.Options{
		Name: v.name, Address: m.Address,
		Limits:  migration.Limits{Downtime: m.Downtime, Stall: m.Stall, Timeout: m.Timeout, Force: m.Force},
		Drain:   policy,
		Streams: m.Streams, Bandwidth: m.Bandwidth,
		Security: migration.Security{TLSDir: m.TLSDir, Insecure: m.Insecure},
		Log:      v.log,
		Progress: func(p migration.Progress) { progress(mustJSON(p)) },
	}, newOutgoing(out, m.AllowCached))
	return mustJSON(report), err
}

// mustJSON is for types of our own, which never fail.
func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// outgoing is a machine as package migration sees it.
type outgoing struct {
	*machine.Outgoing
	allowCached bool
	disks       []migration.Disk
}

var _ migration.Guest = (*outgoing)(nil)

func newOutgoing(o *machine.Outgoing, allowCached bool) *outgoing {
	g := &outgoing{Outgoing: o, allowCached: allowCached}
	for _, d := range o.Disks() {
		g.disks = append(g.disks, &outgoingDisk{Image: d.Image, disk: d})
	}
	return g
}

func (o *outgoing) Regions() []ram.Region { return regions(o.Memory()) }

func (o *outgoing) Check(destination json.RawMessage) error {
	return o.Outgoing.Check(destination, o.allowCached)
}

func (o *outgoing) Disks() []migration.Disk { return o.disks }

func (o *outgoing) Files() (files []migration.File) {
	for _, f := range o.BootFiles() {
		files = append(files, migration.File(f))
	}
	return files
}

func (o *outgoing) Stop() error {
	o.Outgoing.Stop()
	return nil
}

// Leave lets the guest go. It runs elsewhere, and what is left to do here, above all to give back its memory, is urgent for nobody.
func (o *outgoing) Leave() {
	_ = giveWay() // it only takes longer then
	o.Outgoing.Leave()
}

func (o *outgoing) Pause(reason string) { o.Strand(reason) }

func regions(list []memory.Region) (r []ram.Region) {
	for _, g := range list {
		r = append(r, ram.Region(g))
	}
	return r
}

// outgoingDisk is one of its disks. Its image has the locks.
type outgoingDisk struct {
	*blk.Image
	disk machine.OutgoingDisk

	port   *aio.Port // the present one: a driver may start anew
	reader drain.Reader
}

func (d *outgoingDisk) ID() string { return d.disk.ID }

func (d *outgoingDisk) Sample() drain.Sample {
	port := d.disk.Device.Port()
	if port == nil {
		return drain.Sample{Window: 0}
	}
	if port != d.port {
		d.port, d.reader = port, drain.Reader{Port: port}
	}
	return d.reader.Read()
}

func (d *outgoingDisk) SyncDebt() uint64 {
	s, _ := d.disk.Device.Stats()
	return s.SyncDebt
}

func (d *outgoingDisk) Kept() error                         { return d.disk.Kept() }
func (d *outgoingDisk) SetWindow(n int)                     { d.disk.Device.SetDrainWindow(n) }
func (d *outgoingDisk) Idle(ctx context.Context) error      { return d.disk.Device.Idle(ctx) }
func (d *outgoingDisk) Sync(ctx context.Context) error      { return d.disk.Device.Sync(ctx) }
func (d *outgoingDisk) WriteBack(ctx context.Context) error { return d.disk.Device.WriteBack(ctx) }
