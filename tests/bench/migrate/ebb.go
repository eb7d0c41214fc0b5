package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

type ebb struct {
	*bench
	vms moving.EBB
}

func newEBB(b *bench) vmm { return ebb{b, moving.EBB{Host: &b.Host, Program: b.o.ebb}} }

func (e ebb) start(ctx context.Context, at moving.Place) (*moving.VM, error) {
	return e.vms.Run(ctx, e.throttled(at), []string{
		"--kernel", e.kernel, "--append", e.cmdline(), "--memory", memory,
		"--disk", fmt.Sprintf("path=%s,direct,queue-size=%d", e.disk.path, queueSize),
	})
}

func (e ebb) receive(ctx context.Context, at moving.Place) (*moving.VM, error) {
	return e.vms.Receive(ctx, e.throttled(at), []string{"--disk-dir", filepath.Dir(e.disk.path)})
}

func (e ebb) migrate(ctx context.Context, from, to *moving.VM) (own, error) {
	r, err := e.vms.Migrate(ctx, from, to, []string{"--drain", e.cell.Policy,
		"--downtime", e.o.downtime.String(), "--stall", e.o.stall.String(), "--timeout", "1m"})
	if err != nil {
		return own{}, err
	}
	return ebbsOwn(r), nil
}

func (e ebb) close() {}
