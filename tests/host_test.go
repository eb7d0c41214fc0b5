package tests

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/cli/control"
)

// host stands for a machine where VMs run: the names of two hosts' VMs don't meet, and neither do
// their networks, if they have network namespaces. Page cache, clock and the table of locks are the same.
type host struct {
	t     *testing.T
	dir   string // with its control sockets
	netns string // name of its network namespace; "": the test's own
}

func newHost(t *testing.T) *host {
	t.Helper()
	return &host{t: t, dir: t.TempDir()}
}

func (h *host) command(args ...string) *exec.Cmd {
	h.t.Helper()
	cmd := ebbCommand(h.t, args...)
	if h.netns != "" {
		in := exec.Command("ip", append([]string{"netns", "exec", h.netns}, cmd.Args...)...)
		in.Env = cmd.Env
		cmd = in
	}
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+h.dir)
	return cmd
}

// start runs ebb on the host.
func (h *host) start(args ...string) *ebb {
	h.t.Helper()
	return startCommand(h.t, h.command(args...))
}

// refuses runs a command that fails with exit code 1 and a sentence that has every one of texts.
func (h *host) refuses(args []string, texts ...string) {
	h.t.Helper()
	h.fails(h.start(args...), texts...)
}

// fails waits until a command has failed with a sentence that has every one of texts.
func (h *host) fails(e *ebb, texts ...string) {
	h.t.Helper()
	e.mustEnd(1)
	said := e.stderr.String()
	last := said[strings.LastIndexByte(strings.TrimRight(said, "\n"), '\n')+1:]
	for _, text := range texts {
		if !strings.Contains(last, text) {
			h.t.Errorf("%s says %q, without %q", strings.Join(e.cmd.Args[1:], " "), last, text)
		}
	}
}

// vms lists the host's VMs.
func (h *host) vms() []control.Info {
	h.t.Helper()
	out, err := h.command("list", "--json").Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		h.t.Fatalf("ebb list: %v: %s", err, exit.Stderr)
	} else if err != nil {
		h.t.Fatal(err)
	}
	var list []control.Info
	if err := json.Unmarshal(out, &list); err != nil {
		h.t.Fatalf("ebb list --json: %v: %s", err, out)
	}
	return list
}

// client talks to a VM without an ebb command between, which takes a second in the lab.
func (h *host) client(name string) *control.Client {
	h.t.Helper()
	c, err := control.Find(filepath.Join(h.dir, "ebb", name+".sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Close)
	return c
}

// receiver is a host that waits for a VM.
type receiver struct {
	*ebb
	address string // tcp:HOST:PORT
}

var waitsAt = regexp.MustCompile(`waiting for a VM at (tcp:\S+)`)

// receive waits for a VM at a port of the host's loopback address, or at a --listen of args.
func (h *host) receive(args ...string) receiver {
	h.t.Helper()
	if !slices.Contains(args, "--listen") {
		args = append(args, "--listen", "tcp:127.0.0.1:0")
	}
	r := receiver{ebb: h.start(append([]string{"receive"}, args...)...)}
	r.complains("waiting for a VM at ")
	r.complains("\n")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.address = waitsAt.FindStringSubmatch(r.stderr.String())[1]
	return r
}

// patient are the limits of a migration in the lab, where everything takes ten times as long.
var patient = []string{"--downtime", "5s", "--stall", "5s", "--timeout", "1m"}

// migrate begins to move a VM.
func (h *host) migrate(name, address string, args ...string) *ebb {
	h.t.Helper()
	return h.start(slices.Concat([]string{"migrate", name, address}, patient, args)...)
}

// moves moves a VM and returns the line that says how it was.
func (h *host) moves(name, address string, args ...string) string {
	h.t.Helper()
	m := h.migrate(name, address, args...)
	if code, _ := m.wait(); code != 0 {
		h.t.Fatalf("ebb migrate: exit code %d\n%s", code, m.transcript())
	}
	return m.stdout.String()
}

// wantLocked checks that nobody gets an image.
func wantLocked(t *testing.T, image string) {
	t.Helper()
	if img, err := blk.OpenImage(image, blk.ImageOptions{}); err == nil {
		img.Close()
		t.Errorf("%s is not locked", image)
	} else if !errors.Is(err, blk.ErrLocked) {
		t.Error(err)
	}
}

// wantFree checks that an image can be had.
func wantFree(t *testing.T, image string) {
	t.Helper()
	img, err := blk.OpenImage(image, blk.ImageOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	img.Close()
}
