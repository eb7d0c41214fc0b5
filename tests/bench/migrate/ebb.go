package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// ebbTimeout is less than migrateLimit, so that ebb says why.
const ebbTimeout = 3 * time.Minute

type ebb struct {
	*bench
	vms moving.EBB
}

func newEBB(b *bench) vmm { return ebb{b, moving.EBB{Host: &b.Host, Program: b.o.ebb}} }

func (e ebb) start(ctx context.Context, at moving.Place) (*moving.VM, error) {
	g := e.boot()
	options := []string{"--kernel", g.kernel, "--append", g.cmdline, "--memory", fmt.Sprintf("%dM", g.memoryMiB)}
	if g.initrd != "" {
		options = append(options, "--initrd", g.initrd)
	}
	if e.disk.path != "" {
		options = append(options, "--disk", fmt.Sprintf("path=%s,direct,queue-size=%d", e.disk.path, queueSize))
	}
	return e.vms.Run(ctx, e.throttled(at), options)
}

func (e ebb) receive(ctx context.Context, at moving.Place) (*moving.VM, error) {
	var options []string
	if e.disk.path != "" {
		options = []string{"--disk-dir", filepath.Dir(e.disk.path)}
	}
	return e.vms.Receive(ctx, e.throttled(at), options)
}

func (e ebb) migrate(ctx context.Context, from, to *moving.VM) (own, error) {
	r, err := e.vms.Migrate(ctx, from, to, []string{"--drain", e.cell.Policy,
		"--downtime", e.o.downtime.String(), "--stall", e.o.stall.String(), "--timeout", ebbTimeout.String()})
	if err != nil {
		return own{}, err
	}
	return ebbsOwn(r), nil
}

func (e ebb) close() {}
