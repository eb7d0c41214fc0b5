package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// qemuDowntime is what QEMU is told to stay below. It counts memory only.
const qemuDowntime = 50 * time.Millisecond

type qemu struct{ *bench }

func (q qemu) argv(v *vm) []string {
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
		"-qmp", "unix:" + q.socket(v) + ",server=on,wait=off",
	}
}

func (q qemu) socket(v *vm) string { return filepath.Join(q.dir, v.name+".qmp") }

func (q qemu) launch(ctx context.Context, v *vm, at place, argv []string) (err error) {
	if err := q.run(ctx, v, at, argv); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	v.monitor, err = dialQMP(ctx, q.socket(v))
	return err
}

func (q qemu) start(ctx context.Context, at place) (*vm, error) {
	v := q.newVM()
	return v, q.launch(ctx, v, at, q.argv(v))
}

func (q qemu) receive(ctx context.Context, at place) (*vm, error) {
	v := q.newVM()
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	v.listen = fmt.Sprintf("tcp:%s:%d", at.address, port)
	return v, q.launch(ctx, v, at, append(q.argv(v), "-incoming", v.listen))
}

func (q qemu) migrate(ctx context.Context, from, to *vm) (own, error) {
	err := from.monitor.do("migrate-set-parameters", map[string]any{
		"downtime-limit": qemuDowntime.Milliseconds(), "max-bandwidth": 10 << 30,
	}, nil)
	if err != nil {
		return own{}, err
	}
	if err := from.monitor.do("migrate", map[string]any{"uri": to.listen}, nil); err != nil {
		return own{}, err
	}
	for {
		var m struct {
			Status    string
			Downtime  int64  // ms
			TotalTime int64  `json:"total-time"`
			ErrorDesc string `json:"error-desc"`
		}
		if err := from.monitor.do("query-migrate", nil, &m); err != nil {
			return own{}, err
		}
		switch {
		case m.Status == "completed" && m.TotalTime > 0: // it says so before it has worked out the rest
			return own{Total: time.Duration(m.TotalTime) * time.Millisecond, Downtime: time.Duration(m.Downtime) * time.Millisecond}, nil
		case m.Status == "failed", m.Status == "cancelled":
			return own{}, fmt.Errorf("QEMU's migration %s: %s", m.Status, m.ErrorDesc)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return own{}, err
		}
	}
}
