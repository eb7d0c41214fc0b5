package tests

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/machine"
)

// console collects what a guest prints.
type console struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every write
	text    strings.Builder
}

func newConsole() *console { return &console{changed: make(chan struct{})} }

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
	return c.text.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// await waits for text. It is an error if over comes first.
func (c *console) await(ctx context.Context, text string, over <-chan struct{}) error {
	for {
		c.mu.Lock()
		found, changed := strings.Contains(c.text.String(), text), c.changed
		c.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-changed:
		case <-over:
			return fmt.Errorf("the guest ended before %q", text)
		case <-ctx.Done():
			return fmt.Errorf("no %q: %w", text, ctx.Err())
		}
	}
}

// A guest that verifies its own I/O is paused again and again. Nothing may be in
// flight then, and nothing may be lost.
func TestPauseUnderIO(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), guestDeadline)
	defer cancel()
	img := images.WithPrograms["6.1"]
	cfg := machine.Config{
		Kernel: img.Kernel.Vmlinux, Initrd: img.Initrd, Cmdline: "console=ttyS0 quiet panic=-1 ebb.run=fio:size=4m",
		Memory: 768 << 20, CPUs: 2, NoReboot: true,
	}
	for i := range 2 {
		cfg.Disks = append(cfg.Disks, machine.Disk{ID: fmt.Sprint(i), Serial: serial(i), Path: makeImage(t, fmt.Sprint(i), 16<<20), Direct: i == 1})
	}
	out := newConsole()
	cfg.Console = out
	m, err := machine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	over := make(chan struct{})
	var (
		end    machine.End
		runErr error
	)
	go func() {
		defer close(over)
		end, runErr = m.Run()
	}()
	defer func() { m.Stop(); <-over }()

	if err := out.await(ctx, "ebb: disk vdb", over); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const between = 8 // requests, from one pause to the next
	requests := func() (n uint64) {
		for _, s := range m.DiskStats() {
			n += s.Read.Requests + s.Write.Requests + s.Long.Requests
		}
		return n
	}
	pauses := 0
	for running(over) {
		err := m.Pause(ctx)
		if errors.Is(err, machine.ErrNotRunning) {
			break
		}
		if err != nil {
			t.Fatalf("pause %d: %v\n%s", pauses, err, out)
		}
		for i, s := range m.DiskStats() {
			if s.InFlight != 0 {
				t.Fatalf("pause %d: %d requests of disk %d are in flight", pauses, s.InFlight, i)
			}
		}
		stood := requests()
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		pauses++
		// The counts begin anew with the guest's driver.
		for n := stood; n >= stood && n < stood+between && running(over); n = requests() {
			if ctx.Err() != nil {
				t.Fatalf("after %d pauses: %v\n%s", pauses, ctx.Err(), out)
			}
			time.Sleep(time.Millisecond)
		}
	}
	t.Logf("%d pauses", pauses)
	select {
	case <-over:
	case <-ctx.Done():
		t.Fatalf("the guest doesn't end: %v\n%s", ctx.Err(), out)
	}
	if runErr != nil || end != machine.PoweredOff {
		t.Fatalf("%v, %v\n%s", end, runErr, out)
	}
	if err := report.Parse(out.String()).Err(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if pauses < 10 {
		t.Errorf("only %d pauses", pauses)
	}
}

func running(over <-chan struct{}) bool {
	select {
	case <-over:
		return false
	default:
		return true
	}
}
