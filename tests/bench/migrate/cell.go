package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// cell is what is varied.
type cell struct {
	Guest  string // ring3 or linux
	Disk   string // fast or slow; "": none, and it is the memory that matters
	Depth  int    // writes outstanding
	Dirty  int    // MB of memory that it changes a second
	VMM    string // "ebb" or "QEMU"
	Policy string // ebb's --drain
}

func (c cell) candidate() string {
	if c.Policy == "" {
		return c.VMM
	}
	return c.VMM + " " + c.Policy
}

func (c cell) ofMemory() bool { return c.Disk == "" }

// load is what the guest does.
func (c cell) load() string {
	switch {
	case c.ofMemory() && c.Dirty == 0:
		return "idle"
	case c.ofMemory():
		return fmt.Sprintf("%d MB/s dirtied", c.Dirty)
	case c.Guest == linux:
		return fmt.Sprintf("Linux, %s disk, %d writes", c.Disk, c.Depth)
	}
	return fmt.Sprintf("%s disk, %d writes", c.Disk, c.Depth)
}

func (c cell) String() string { return c.load() + ", " + c.candidate() }

// by is the same with another candidate.
func (c cell) by(candidate cell) cell {
	c.VMM, c.Policy = candidate.VMM, candidate.Policy
	return c
}

// candidates are those compared, one of each VMM first.
var candidates = []cell{
	{VMM: "ebb", Policy: "adaptive"},
	{VMM: "QEMU"},
	{VMM: "ebb", Policy: "serial"},
	{VMM: "ebb", Policy: "off"},
}

// loads are those measured, each a cell without a candidate. A guest with Linux is there for one load of disks, and for all of memory.
func (o options) loads() (list []cell) {
	if o.ram {
		return []cell{{Guest: linux}, {Guest: linux, Dirty: o.dirty}}
	}
	for _, guest := range o.guests {
		for _, disk := range o.disks {
			for _, depth := range o.depths {
				if guest == ring3 || disk == slow && depth == linuxDepth {
					list = append(list, cell{Guest: guest, Disk: disk, Depth: depth})
				}
			}
		}
	}
	return list
}

const linuxDepth = 64

// compared are a load's cells. With Linux, one of each VMM is enough.
func (o options) compared(load cell) (list []cell) {
	for i, c := range candidates {
		if slices.Contains(o.candidates, c.candidate()) && (load.Guest == ring3 || i < 2) {
			list = append(list, load.by(c))
		}
	}
	return list
}

// boots tells whether a guest is among those measured.
func (o options) boots(guest string) bool {
	return slices.ContainsFunc(o.loads(), func(c cell) bool { return c.Guest == guest })
}

// sample is one migration.
type sample struct {
	Round   int
	Cell    cell
	Figures figures
	Failed  string // why it failed, if it did; the guest then went on at the source
}

const (
	startLimit   = 5 * time.Minute // memory has to be filled
	migrateLimit = 4 * time.Minute
	silenceLimit = 30 * time.Second
)

// visit boots the guest and migrates it n times, from one process to the next. A migration that fails is a sample,
// and the last one.
func (b *bench) visit(ctx context.Context, n int, places [2]moving.Place) (samples []sample, err error) {
	make := newEBB
	if b.cell.VMM == "QEMU" {
		make = newQEMU
	}
	v := make(b)
	var vms []*moving.VM
	defer func() {
		for _, v := range vms {
			v.Stop()
		}
		v.close()
		if err != nil && len(vms) > 0 {
			err = fmt.Errorf("%v: %w\n%s", b.cell, err, vms[len(vms)-1].Log.String())
		}
	}()
	if b.disk.path != "" {
		if err := moving.Free(ctx, b.disk.path); err != nil {
			return nil, err
		}
	}
	guest, err := v.start(ctx, places[0])
	if guest != nil {
		vms = append(vms, guest)
	}
	if err != nil {
		return nil, err
	}
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if _, err := guest.Ready(starting); err != nil {
		return nil, err
	}
	for i := range n {
		to, err := v.receive(ctx, places[(i+1)%2])
		if to != nil {
			vms = append(vms, to)
		}
		if err != nil {
			return samples, err
		}
		s := sample{Cell: b.cell}
		if s.Figures, err = b.migrate(ctx, v, vms); err != nil {
			if ctx.Err() != nil {
				return samples, err
			}
			s.Failed = err.Error()
			return append(samples, s), nil
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// migrate moves the guest from the last but one to the last.
func (b *bench) migrate(ctx context.Context, v vmm, vms []*moving.VM) (f figures, err error) {
	from, to := vms[len(vms)-2], vms[len(vms)-1]
	plain := 0.0
	if b.cell.ofMemory() {
		if plain, err = b.copier.Between(ctx); err != nil {
			return f, fmt.Errorf("a plain copy: %w", err)
		}
	}
	control := time.Now()
	if err := moving.Sleep(ctx, b.o.control); err != nil {
		return f, err
	}
	limited, cancel := context.WithTimeout(ctx, migrateLimit)
	defer cancel()
	begin := time.Now()
	own, err := v.migrate(limited, from, to)
	if err != nil {
		return f, fmt.Errorf("%w\nsource: %s\ndestination: %s", err, from.Log.String(), to.Log.String())
	}
	end := time.Now()
	if err := moving.Sleep(ctx, settle); err != nil {
		return f, err
	}
	silent, cancelSilent := context.WithTimeout(ctx, silenceLimit)
	defer cancelSilent()
	if err := to.Says(silent, 1); err != nil {
		return f, fmt.Errorf("since the migration: %w\ndestination: %s", err, to.Log.String())
	}
	from.Stop()
	var sides []*moving.Console
	for _, v := range vms {
		sides = append(sides, &v.Console)
	}
	lines, err := moving.Timeline(sides...)
	if err == nil {
		f, err = measure(lines, control, begin, end)
	}
	if err != nil {
		return f, fmt.Errorf("%w\ndestination: %s", err, to.Log.String())
	}
	f.Own, f.Plain = own, plain
	return f, nil
}
