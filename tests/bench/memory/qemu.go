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
	period     = 200 * time.Millisecond // between the guest's lines
	firstLines = 5                      // of the guest's, before anything is done
	settle     = 2 * time.Second        // from a plain copy to the migration
)

// qemu migrates a guest with Linux that QEMU emulates.
func (b *bench) qemu(ctx context.Context, dirty int) (s sample, err error) {
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
	to, err := b.startQEMU(ctx, dirty, "-incoming", listen)
	if err != nil {
		return s, err
	}
	defer to.Stop()
	monitor, err := moving.DialQMP(ctx, b.monitor(from.Name))
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, from.Log.String())
	}
	defer monitor.Close()
	var lines []moving.Line
	for len(lines) < firstLines { // of the guest's, not its kernel's
		if err := from.Says(ctx, 1); err != nil {
			return s, fmt.Errorf("%w: %s", err, from.Log.String())
		}
		if lines, err = moving.Timeline(&from.Console); err != nil {
			return s, err
		}
	}
	if s.plain, err = b.copyBeside(ctx); err != nil {
		return s, err
	}
	if lines, err = moving.Timeline(&from.Console); err != nil {
		return s, err
	}
	s.dirtied = lines[len(lines)-1].IOPS * ram.PageSize
	m, err := monitor.Migrate(ctx, listen, b.downtime)
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
