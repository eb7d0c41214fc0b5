package moving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/migration"
)

// EBB runs guests in ebb.
type EBB struct {
	*Host
	Program string
}

// Run starts a guest with options of ebb run.
func (e EBB) Run(ctx context.Context, at Place, options []string) (*VM, error) {
	return e.Start(ctx, at, func(name string) []string {
		return append([]string{e.Program, "run", "--name", name, "--no-reboot"}, options...)
	})
}

// Receive returns when ebb receive listens, with options. It has a minute for that.
func (e EBB) Receive(ctx context.Context, at Place, options []string) (*VM, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	listen := fmt.Sprintf("tcp:%s:%d", at.Address, port)
	v, err := e.Start(ctx, at, func(name string) []string {
		return append([]string{e.Program, "receive", "--insecure", "--name", name, "--listen", listen}, options...)
	})
	if err != nil {
		return nil, err
	}
	v.Listen = listen
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !strings.Contains(v.Log.String(), "waiting for a VM") {
		select {
		case <-v.ended:
			return v, errors.New(v.Log.String())
		default:
		}
		if err := Sleep(starting, 20*time.Millisecond); err != nil {
			return v, fmt.Errorf("waiting for ebb receive: %w: %s", err, v.Log.String())
		}
	}
	return v, nil
}

// Migrate runs ebb migrate with options. There is a report for a migration that began and failed, too.
func (e EBB) Migrate(ctx context.Context, from, to *VM, options []string) (*migration.Report, error) {
	file := filepath.Join(e.Dir, "report.json")
	_ = os.Remove(file) // of the migration before
	argv := slices.Concat([]string{"migrate", from.Name, to.Listen, "--insecure", "--report", file}, options)
	cmd := exec.CommandContext(ctx, e.Program, argv...)
	cmd.Env = e.environment()
	said, failed := cmd.CombinedOutput()
	if failed != nil {
		lines := strings.Split(strings.TrimSpace(string(said)), "\n") // all but the last are of its progress
		failed = fmt.Errorf("ebb migrate: %w: %s", failed, lines[len(lines)-1])
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, errors.Join(failed, err)
	}
	var r migration.Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &r, failed
}

// Stats is what ebb stats says of a VM.
func (e EBB) Stats(ctx context.Context, v *VM) (s control.Stats, err error) {
	cmd := exec.CommandContext(ctx, e.Program, "stats", v.Name, "--json")
	cmd.Env = e.environment()
	said, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("ebb stats: %w", err)
	}
	return s, json.Unmarshal(said, &s)
}
