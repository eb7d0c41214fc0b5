package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// qemuDowntime is what QEMU is told to stay below. It counts memory only.
const qemuDowntime = 50 * time.Millisecond

type qemu struct {
	*bench
	monitors map[*moving.VM]*qmp
}

func newQEMU(b *bench) vmm { return qemu{b, map[*moving.VM]*qmp{}} }

func (q qemu) close() {
	for _, m := range q.monitors {
		m.conn.Close()
	}
}

func (q qemu) argv(name string) []string {
	driver := "file"
	if strings.HasPrefix(q.disk.path, "/dev/") {
		driver = "host_device"
	}
	return []string{
		"qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m", strings.TrimSuffix(memory, "M"),
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-object", "iothread,id=io", "-kernel", q.kernel, "-append", q.cmdline(),
		"-blockdev", fmt.Sprintf("driver=raw,node-name=d0,cache.direct=on,file.driver=%s,file.filename=%s,file.aio=io_uring,file.cache.direct=on", driver, q.disk.path),
		"-device", fmt.Sprintf("virtio-blk-pci,drive=d0,iothread=io,queue-size=%d", queueSize),
		"-qmp", "unix:" + q.socket(name) + ",server=on,wait=off",
	}
}

func (q qemu) socket(name string) string { return filepath.Join(q.Dir, name+".qmp") }

func (q qemu) launch(ctx context.Context, at moving.Place, options ...string) (*moving.VM, error) {
	v, err := q.Start(ctx, q.throttled(at), func(name string) []string { return append(q.argv(name), options...) })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m, err := dialQMP(ctx, q.socket(v.Name))
	if err == nil {
		q.monitors[v] = m
	}
	return v, err
}

func (q qemu) start(ctx context.Context, at moving.Place) (*moving.VM, error) {
	return q.launch(ctx, at)
}

func (q qemu) receive(ctx context.Context, at moving.Place) (*moving.VM, error) {
	port, err := moving.FreePort()
	if err != nil {
		return nil, err
	}
	listen := fmt.Sprintf("tcp:%s:%d", at.Address, port)
	v, err := q.launch(ctx, at, "-incoming", listen)
	if v != nil {
		v.Listen = listen
	}
	return v, err
}

func (q qemu) migrate(ctx context.Context, from, to *moving.VM) (own, error) {
	monitor := q.monitors[from]
	err := monitor.do("migrate-set-parameters", map[string]any{
		"downtime-limit": qemuDowntime.Milliseconds(), "max-bandwidth": 10 << 30,
	}, nil)
	if err != nil {
		return own{}, err
	}
	if err := monitor.do("migrate", map[string]any{"uri": to.Listen}, nil); err != nil {
		return own{}, err
	}
	for {
		var m struct {
			Status    string
			Downtime  int64  // ms
			TotalTime int64  `json:"total-time"`
			ErrorDesc string `json:"error-desc"`
		}
		if err := monitor.do("query-migrate", nil, &m); err != nil {
			return own{}, err
		}
		switch {
		case m.Status == "completed" && m.TotalTime > 0: // it says so before it has worked out the rest
			return own{Total: time.Duration(m.TotalTime) * time.Millisecond, Downtime: time.Duration(m.Downtime) * time.Millisecond}, nil
		case m.Status == "failed", m.Status == "cancelled":
			return own{}, fmt.Errorf("QEMU's migration %s: %s", m.Status, m.ErrorDesc)
		}
		if err := moving.Sleep(ctx, 50*time.Millisecond); err != nil {
			return own{}, err
		}
	}
}
