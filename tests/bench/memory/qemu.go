package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ebb-vmm/ebb/migration/ram"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

const (
	period = 200 * time.Millisecond // between the guest's lines
	settle = 2 * time.Second        // from a plain copy to the migration
)

// QEMU as it is, and with several connections.
const (
	qemuPlain   = "QEMU"
	qemuMultifd = "QEMU multifd"
)

// qemu migrates a guest with Linux that QEMU emulates.
func (b *bench) qemu(ctx context.Context, dirty, streams int) (s sample, err error) {
	port, err := moving.FreePort()
	if err != nil {
		return s, err
	}
	listen := fmt.Sprintf("tcp:%s:%d", moving.Here.Address, port)
	from, err := b.startQEMU(ctx, dirty)
	if err != nil {
		return s, err
	}
	defer from.Stop()
	to, err := b.startQEMU(ctx, dirty, "-incoming", "defer")
	if err != nil {
		return s, err
	}
	defer to.Stop()
	var monitors [2]*moving.QMP
	for i, v := range []*moving.VM{from, to} {
		if monitors[i], err = moving.DialQMP(ctx, b.monitor(v.Name)); err != nil {
			return s, fmt.Errorf("%w: %s", err, v.Log.String())
		}
		defer monitors[i].Close()
	}
	if err := monitors[1].Listen(ctx, listen, streams); err != nil {
		return s, err
	}
	if _, err := from.Ready(ctx); err != nil {
		return s, err
	}
	if err = b.copyBeside(ctx, &s); err != nil {
		return s, err
	}
	lines, err := moving.Timeline(&from.Console)
	if err != nil {
		return s, err
	}
	s.dirtied = lines[len(lines)-1].IOPS * ram.PageSize
	m, err := monitors[0].Migrate(ctx, listen, streams, b.downtime)
	if err != nil {
		return s, err
	}
	s.total, s.downtime, s.sent = m.Total, m.Downtime, float64(m.Sent)
	return s, to.Says(ctx, 1)
}

func (b *bench) startQEMU(ctx context.Context, dirty int, options ...string) (*moving.VM, error) {
	return b.Start(ctx, moving.Here, func(name string) []string {
		return append([]string{
			"qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", strconv.Itoa(b.memoryMiB), "-mem-prealloc",
			"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
			"-kernel", b.linux.Kernel.Vmlinux, "-initrd", b.linux.Initrd,
			"-append", fmt.Sprintf("console=ttyS0 quiet panic=-1 ebb.run=load:period=%v:depth=0:fill=%dm:dirty=%d", period, filled(b.memoryMiB), dirty*1_000_000),
			"-qmp", "unix:" + b.monitor(name) + ",server=on,wait=off",
		}, options...)
	})
}

func (b *bench) monitor(name string) string { return filepath.Join(b.Dir, name+".qmp") }
