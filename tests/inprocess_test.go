package tests

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/machine"
)

// guestMachine is a guest with a shell in this process, for what only package machine
// can do to it.
type guestMachine struct {
	*machine.Machine
	t    *testing.T
	ctx  context.Context
	out  *console
	log  *console
	over chan struct{} // closed when Run has returned
	end  machine.End
	err  error
}

// startMachine boots a small guest; cfg needs no kernel.
func startMachine(t *testing.T, series string, cfg machine.Config) *guestMachine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*guestDeadline)
	g := &guestMachine{t: t, ctx: ctx, out: newConsole(), log: newConsole(), over: make(chan struct{})}
	img := images.Small[series]
	cfg.Kernel, cfg.Initrd = img.Kernel.Vmlinux, img.Initrd
	cfg.Cmdline = "console=ttyS0 quiet panic=-1"
	cfg.Memory = max(cfg.Memory, 256<<20)
	cfg.CPUs = max(cfg.CPUs, 1)
	cfg.Console = g.out
	cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(g.log, t.Output()), nil))
	m, err := machine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.Machine = m
	go func() {
		defer close(g.over)
		g.end, g.err = m.Run()
	}()
	t.Cleanup(func() {
		m.Stop()
		<-g.over
		cancel()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

const prompt = "ebb:/#"

// expect waits until the console has text.
func (g *guestMachine) expect(text string) {
	g.t.Helper()
	if err := g.out.await(g.ctx, text, g.over); err != nil {
		g.t.Fatalf("%v (end %v, error %v)\n%s", err, g.end, g.err, g.out)
	}
}

// run types a command into the guest's shell and returns what it printed.
func (g *guestMachine) run(format string, args ...any) string {
	g.t.Helper()
	command := fmt.Sprintf(format, args...)
	from := len(g.out.String())
	if err := g.Input([]byte("echo --'begin'--; " + command + "; echo --'end'--\n")); err != nil {
		g.t.Fatalf("typing %q: %v\n%s", command, err, g.out)
	}
	for {
		changed := g.out.grows()
		_, rest, begun := strings.Cut(g.out.String()[from:], "--begin--\r\n")
		out, _, ended := strings.Cut(rest, "--end--")
		if begun && ended {
			return strings.ReplaceAll(out, "\r", "")
		}
		select {
		case <-changed:
		case <-g.over:
			g.t.Fatalf("the guest ended at %q: %v, %v\n%s", command, g.end, g.err, g.out)
		case <-g.ctx.Done():
			g.t.Fatalf("the guest did not finish %q\n%s", command, g.out)
		}
	}
}

// grows returns a channel that is closed at the next write.
func (c *console) grows() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}
