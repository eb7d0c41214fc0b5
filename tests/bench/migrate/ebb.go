package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/migration"
)

type ebb struct{ *bench }

func (e ebb) start(ctx context.Context, at place) (*vm, error) {
	v := e.newVM()
	return v, e.run(ctx, v, at, []string{
		e.o.ebb, "run", "--name", v.name, "--kernel", e.kernel, "--append", e.cmdline(), "--memory", memory, "--no-reboot",
		"--disk", fmt.Sprintf("path=%s,direct,queue-size=%d", e.disk.path, queueSize),
	})
}

func (e ebb) receive(ctx context.Context, at place) (*vm, error) {
	v := e.newVM()
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	v.listen = fmt.Sprintf("tcp:%s:%d", at.address, port)
	err = e.run(ctx, v, at, []string{e.o.ebb, "receive", "--insecure", "--name", v.name, "--listen", v.listen, "--disk-dir", filepath.Dir(e.disk.path)})
	if err != nil {
		return v, err
	}
	return v, v.waits(ctx)
}

func (e ebb) migrate(ctx context.Context, from, to *vm) (own, error) {
	file := filepath.Join(e.dir, "report.json")
	cmd := exec.CommandContext(ctx, e.o.ebb, "migrate", from.name, to.listen, "--insecure", "--drain", e.cell.Policy,
		"--downtime", e.o.downtime.String(), "--stall", e.o.stall.String(), "--report", file, "--timeout", "1m")
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+e.dir)
	said, err := cmd.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(said)), "\n") // all but the last are of its progress
		return own{}, fmt.Errorf("ebb migrate: %w: %s", err, lines[len(lines)-1])
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return own{}, err
	}
	var r migration.Report
	if err := json.Unmarshal(data, &r); err != nil {
		return own{}, fmt.Errorf("%s: %w", file, err)
	}
	return ebbsOwn(&r), nil
}

// waits returns when `ebb receive` listens.
func (v *vm) waits(ctx context.Context) error {
	for !strings.Contains(v.log.String(), "waiting for a VM") {
		select {
		case <-v.ended:
			return errors.New(v.log.String())
		default:
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
