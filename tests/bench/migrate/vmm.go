package main

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
)

// place is where a VM runs: this host, or one of the demo's two.
type place struct {
	address string   // that others reach it at
	command []string // runs others there
}

var here = place{address: "127.0.0.1"}

// vmm is ebb or QEMU.
type vmm interface {
	// start runs the guest; receive waits for it.
	start(ctx context.Context, at place) (*vm, error)
	receive(ctx context.Context, at place) (*vm, error)
	// migrate returns when the guest runs at the destination.
	migrate(ctx context.Context, from, to *vm) (own, error)
}

// vm is one process with the guest, or for it.
type vm struct {
	name    string
	listen  string // where it receives
	cmd     *exec.Cmd
	console console
	log     log
	ended   chan struct{}
	monitor *qmp // QEMU's
}

// bench is what all VMs have in common.
type bench struct {
	o       options
	kernel  string
	dir     string // for sockets and reports
	cell    cell
	disk    disk
	counter int // of VMs, for names
}

const (
	memory    = "64M"
	period    = 200 * time.Millisecond // between the guest's lines
	queueSize = 512                    // 3 descriptors a request
)

func (b *bench) cmdline() string {
	return fmt.Sprintf("depth=%d size=4096 mode=write forever period=%d", b.cell.Depth, period.Milliseconds())
}

func (b *bench) newVM() *vm {
	b.counter++
	return &vm{name: fmt.Sprintf("bench-%d", b.counter), ended: make(chan struct{})}
}

// run starts its process.
func (b *bench) run(ctx context.Context, v *vm, at place, argv []string) error {
	argv = slices.Concat(at.command, b.disk.command(), argv)
	v.cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	v.cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+b.dir)
	v.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	v.cmd.Stderr = &v.log
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := v.cmd.Start(); err != nil {
		return err
	}
	go func() {
		v.console.follow(out)
		_ = v.cmd.Wait() // how it ended is of no interest
		close(v.ended)
	}()
	return nil
}

// stop ends it, if it hasn't ended, and returns when all it said is there.
func (v *vm) stop() {
	if v == nil || v.cmd == nil || v.cmd.Process == nil {
		return
	}
	_ = v.cmd.Process.Kill()
	<-v.ended
	if v.monitor != nil {
		v.monitor.conn.Close()
	}
}

// says waits for lines of the guest's, more than there are.
func (v *vm) says(ctx context.Context, more int) error {
	have, _ := v.console.state()
	for {
		n, err := v.console.state()
		if n >= have+more {
			return nil
		}
		if err != nil {
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for the guest: %w", err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// freePort is one that nobody listened at a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// log is what a process says on its standard error.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
