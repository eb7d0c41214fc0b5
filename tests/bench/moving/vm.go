package moving

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/blk"
)

// Place is where a VM runs.
type Place struct {
	Address string   // that others reach it at
	Command []string // runs others there
}

// Here is this host.
var Here = Place{Address: "127.0.0.1"}

// Host is what all VMs of a benchmark have in common.
type Host struct {
	Dir     string // for sockets and reports
	counter int    // of VMs, for names
}

// VM is one process with the guest, or for it.
type VM struct {
	Name    string
	Listen  string // where it receives
	Console Console
	Log     Log
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Start runs a VM's process: argv, which is told the name.
func (h *Host) Start(ctx context.Context, at Place, argv func(name string) []string) (*VM, error) {
	h.counter++
	v := &VM{Name: fmt.Sprintf("bench-%d", h.counter), ended: make(chan struct{})}
	all := slices.Concat(at.Command, argv(v.Name))
	v.cmd = exec.CommandContext(ctx, all[0], all[1:]...)
	v.cmd.Env = h.environment()
	v.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	v.cmd.Stderr = &v.Log
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		v.Console.follow(out)
		_ = v.cmd.Wait() // how it ended is of no interest
		close(v.ended)
	}()
	return v, nil
}

func (h *Host) environment() []string { return append(os.Environ(), "XDG_RUNTIME_DIR="+h.Dir) }

// Stop ends it, if it hasn't ended, and returns when all it said is there.
func (v *VM) Stop() {
	_ = v.cmd.Process.Kill()
	<-v.ended
}

// Says waits for lines of the guest's, more than there are.
func (v *VM) Says(ctx context.Context, more int) error {
	have, _ := v.Console.state()
	for {
		n, err := v.Console.state()
		if n >= have+more {
			return nil
		}
		if err != nil {
			return err
		}
		if err := Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for the guest: %w", err)
		}
	}
}

// Ready waits until the guest is at its work, as its lines say; what its kernel and init say before doesn't count. It returns the lines.
func (v *VM) Ready(ctx context.Context) ([]Line, error) {
	const enough = 5
	for {
		lines, err := Timeline(&v.Console)
		if err != nil || len(lines) >= enough {
			return lines, err
		}
		if err := v.Says(ctx, 1); err != nil {
			return nil, fmt.Errorf("%w: %s", err, v.Log.String())
		}
	}
}

// Sleep returns early with an error when ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// FreePort is one that nobody listened at a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Log is what a process says on its standard error.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Free waits until nobody has a disk open for writing: a process that was killed with requests in flight keeps its
// locks until they are done.
func Free(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		i, err := blk.OpenImage(path, blk.ImageOptions{Direct: true})
		if err == nil {
			return i.Close()
		}
		if Sleep(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}
