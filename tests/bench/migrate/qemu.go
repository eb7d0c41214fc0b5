package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// qemuDowntime is QEMU's limit where a disk is compared.
const qemuDowntime = 50 * time.Millisecond

type qemu struct {
	*bench
	monitors map[*moving.VM]*moving.QMP
}

func newQEMU(b *bench) vmm { return qemu{b, map[*moving.VM]*moving.QMP{}} }

func (q qemu) close() {
	for _, m := range q.monitors {
		m.Close()
	}
}

func (q qemu) argv(name string) []string {
	g := q.boot()
	argv := []string{
		"qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m", strconv.Itoa(g.memoryMiB),
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", g.kernel, "-append", g.cmdline,
		"-qmp", "unix:" + q.socket(name) + ",server=on,wait=off",
	}
	if g.initrd != "" {
		argv = append(argv, "-initrd", g.initrd)
	}
	if q.disk.path != "" {
		driver := "file"
		if strings.HasPrefix(q.disk.path, "/dev/") {
			driver = "host_device"
		}
		argv = append(argv, "-object", "iothread,id=io",
			"-blockdev", fmt.Sprintf("driver=raw,node-name=d0,cache.direct=on,file.driver=%s,file.filename=%s,file.aio=io_uring,file.cache.direct=on", driver, q.disk.path),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d0,iothread=io,queue-size=%d", queueSize))
	}
	return argv
}

// downtime is what QEMU is told to stay below. It counts memory only, so that where memory is compared it is ebb's own.
func (q qemu) downtime() time.Duration {
	if q.cell.ofMemory() {
		return q.o.downtime
	}
	return qemuDowntime
}

// streams are the connections for memory: as many as ebb's where memory is compared, else QEMU's own.
func (q qemu) streams() int {
	if q.cell.ofMemory() {
		return migration.DefaultStreams
	}
	return 1
}

func (q qemu) socket(name string) string { return filepath.Join(q.Dir, name+".qmp") }

func (q qemu) launch(ctx context.Context, at moving.Place, options ...string) (*moving.VM, error) {
	v, err := q.Start(ctx, q.throttled(at), func(name string) []string { return append(q.argv(name), options...) })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m, err := moving.DialQMP(ctx, q.socket(v.Name))
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
	v, err := q.launch(ctx, at, "-incoming", "defer")
	if v != nil {
		v.Listen = listen
	}
	if err != nil {
		return v, err
	}
	return v, q.monitors[v].Listen(ctx, listen, q.streams())
}

func (q qemu) migrate(ctx context.Context, from, to *moving.VM) (own, error) {
	m, err := q.monitors[from].Migrate(ctx, to.Listen, q.streams(), q.downtime())
	return own{Total: m.Total, Downtime: m.Downtime, Sent: m.Sent}, err
}
