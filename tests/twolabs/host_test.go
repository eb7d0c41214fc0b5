package twolabs

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/cli"
	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// asEbb makes this test binary be ebb.
const asEbb = "EBB_TEST_AS_EBB"

// image is the guest.
var image guest.Image

func TestMain(m *testing.M) {
	if os.Getenv(asEbb) != "" {
		os.Exit(cli.Main(os.Args))
	}
	flag.Parse()
	if testing.Short() {
		lab.Skip("these tests need two labs, which -short leaves out")
	}
	if err := lab.Available(); err != nil {
		lab.Skip("these tests need two labs: " + err.Error())
	}
	var err error
	if image, err = guest.Build(context.Background(), guest.Spec{Series: "6.12"}); err != nil {
		lab.Skip("no guest image to test with: " + err.Error())
	}
	os.Exit(m.Run())
}

// host is a lab with a shell in it.
type host struct {
	t       *testing.T
	name    string
	address string // on the cable
	stdin   io.WriteCloser

	mu      sync.Mutex
	changed sync.Cond
	printed bytes.Buffer
	over    bool
	how     string // it ended

	scripts int // typed
	vms     int // ebbs started
}

// newHost boots a lab at one end of a cable.
func newHost(t *testing.T, name, address string, cable *lab.CableEnd, deadline time.Duration, drives ...string) *host {
	t.Helper()
	h := &host{t: t, name: name, address: address}
	h.changed.L = &h.mu
	stdin, w := io.Pipe()
	h.stdin = w
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o := lab.Options{MemoryMiB: 2048, Deadline: deadline, Drives: drives, Cable: cable, Env: append(lab.Environment(), asEbb+"=1")}
		code, err := lab.Run(t.Context(), o, []string{"sh"}, stdin, h, h)
		stdin.Close()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.over, h.how = true, fmt.Sprintf("exit code %d, %v", code, err)
		h.changed.Broadcast()
	}()
	t.Cleanup(func() {
		h.stdin.Close() // the shell ends
		<-ended
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.run(`ebb() { ` + self + ` "$@"; }
		cd /tmp && ip address add ` + address + `/24 dev eth0 && ip link set eth0 mtu 65000 up`)
	return h
}

// Write takes what the shell prints.
func (h *host) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed.Broadcast()
	return h.printed.Write(p)
}

// run has the shell run a script, which must end well, and returns what it printed.
func (h *host) run(script string) string {
	h.t.Helper()
	out, status := h.script(script)
	if status != "0" {
		logs, _ := h.script("tail -n 40 vm*/console vm*/log; dmesg | tail")
		h.t.Fatalf("%s: %s\nends with status %s\n%s\n%s", h.name, script, status, out, logs)
	}
	return out
}

// script returns what a script printed, and its exit code.
func (h *host) script(script string) (out, status string) {
	h.t.Helper()
	h.scripts++
	h.mu.Lock()
	from := h.printed.Len()
	h.mu.Unlock()
	end := fmt.Sprintf("--end %d-- ", h.scripts)
	fmt.Fprintf(h.stdin, "{ %s\n} 2>&1; echo '%s'$?\n", script, end) // fails if it has ended, as is seen below
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		text := h.printed.String()[from:]
		out, status, _ := strings.Cut(text, end)
		if status, _, whole := strings.Cut(status, "\n"); whole {
			return out, status
		}
		if h.over {
			h.t.Fatalf("%s has ended (%s) in %s\n%s", h.name, h.how, script, text)
		}
		h.changed.Wait()
	}
}

// vm is an ebb in the background. Its standard streams are files in a folder.
type vm struct {
	*host
	dir string
}

// start starts an ebb.
func (h *host) start(args string) *vm {
	h.t.Helper()
	h.vms++
	v := &vm{h, fmt.Sprintf("vm%d", h.vms)}
	v.run(fmt.Sprintf("mkdir %[1]s && mkfifo %[1]s/in && { ebb %[2]s <>%[1]s/in >%[1]s/console 2>%[1]s/log & pid=$!; }", v.dir, args))
	return v
}

// await waits until it has printed a text to one of its files.
func (v *vm) await(text, file string) {
	v.t.Helper()
	v.run(fmt.Sprintf("while kill -0 $pid 2>/dev/null && ! grep -q '%[1]s' %[2]s/%[3]s; do sleep 0.1; done; grep -q '%[1]s' %[2]s/%[3]s", text, v.dir, file))
}

// types types a line into its console.
func (v *vm) types(line string) {
	v.t.Helper()
	v.run(fmt.Sprintf("echo '%s' >%s/in", line, v.dir))
}

// mustEnd waits for an exit code.
func (v *vm) mustEnd(code int) {
	v.t.Helper()
	v.run(fmt.Sprintf("wait $pid; [ $? = %d ]", code))
}

// says is all that it has printed to one of its files.
func (v *vm) says(file string) string {
	v.t.Helper()
	return v.run("cat " + v.dir + "/" + file)
}
