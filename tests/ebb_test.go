package tests

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/guest/report"
)

// guestDeadline bounds the life of one guest. Under emulation the longest takes half
// a minute.
const guestDeadline = 2 * time.Minute

// ebb is a running ebb with everything it printed.
type ebb struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan error
	limit *time.Timer // calls overdue

	mu      sync.Mutex
	changed sync.Cond
	stdout  bytes.Buffer
	stderr  bytes.Buffer
	over    bool
	late    bool // it had its time
}

// ebbCommand is ebb with args.
func ebbCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asEbb+"=1")
	return cmd
}

// startEbb runs ebb with args. Its input stays open until the test closes it.
func startEbb(t *testing.T, args ...string) *ebb {
	t.Helper()
	return startCommand(t, ebbCommand(t, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *ebb {
	t.Helper()
	e := &ebb{t: t, cmd: cmd, ended: make(chan error, 1)}
	e.changed.L = &e.mu
	var err error
	e.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	e.cmd.Stdout = &stream{e, &e.stdout}
	e.cmd.Stderr = &stream{e, &e.stderr}
	if e.stdin, err = e.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e.limit = time.AfterFunc(guestDeadline, e.overdue)
	go func() {
		err := e.cmd.Wait()
		e.limit.Stop()
		e.mu.Lock()
		e.over = true
		e.changed.Broadcast()
		e.mu.Unlock()
		e.ended <- err
	}()
	t.Cleanup(func() {
		e.cmd.Process.Kill()
		e.await(func() bool { return e.over })
	})
	return e
}

// lives gives a guest that is used for long another guestDeadline.
func (e *ebb) lives() { e.limit.Reset(guestDeadline) }

// stream collects one of ebb's outputs.
type stream struct {
	e *ebb
	b *bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.e.changed.Broadcast()
	return s.b.Write(p)
}

// await waits until done, which is called with the lock held, or ebb's end.
func (e *ebb) await(done func() bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !done() {
		if e.over {
			return false
		}
		e.changed.Wait()
	}
	return true
}

// expect waits until the console has text.
func (e *ebb) expect(text string) {
	e.t.Helper()
	if !e.await(func() bool { return strings.Contains(e.stdout.String(), text) }) {
		e.wait() // had it its time?
		e.t.Fatalf("ebb ended before the console showed %q\n%s", text, e.transcript())
	}
}

// run types a command into the guest's shell and returns what it printed.
func (e *ebb) run(command string) string {
	e.t.Helper()
	const begin, end = "--begin--\r\n", "--end--"
	e.mu.Lock()
	from := e.stdout.Len()
	e.mu.Unlock()
	// The quotes keep the terminal's echo from looking like the marks.
	if _, err := io.WriteString(e.stdin, "echo --'begin'--; "+command+"; echo --'end'--\n"); err != nil {
		e.t.Fatalf("typing %q: %v\n%s", command, err, e.transcript())
	}
	var out string
	if !e.await(func() bool {
		_, rest, begun := strings.Cut(e.stdout.String()[from:], begin)
		var ended bool
		out, _, ended = strings.Cut(rest, end)
		return begun && ended
	}) {
		e.wait() // had it its time?
		e.t.Fatalf("the guest did not finish %q\n%s", command, e.transcript())
	}
	return strings.ReplaceAll(out, "\r", "")
}

// wait returns the exit code and what the guest reported.
func (e *ebb) wait() (int, report.Report) {
	e.t.Helper()
	err := <-e.ended
	e.ended <- err
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() < 0) {
		e.t.Fatalf("ebb: %v\n%s", err, e.transcript())
	}
	e.mu.Lock()
	late, console := e.late, e.stdout.String()
	e.mu.Unlock()
	if late {
		e.t.Fatalf("ebb did not end within %v\n%s", guestDeadline, e.transcript())
	}
	return e.cmd.ProcessState.ExitCode(), report.Parse(console)
}

// terminate sends ebb the signal a service manager would.
func (e *ebb) terminate() {
	e.t.Helper()
	if err := e.cmd.Process.Signal(unix.SIGTERM); err != nil {
		e.t.Fatal(err)
	}
}

// mustEnd waits for exit code want.
func (e *ebb) mustEnd(want int) report.Report {
	e.t.Helper()
	code, r := e.wait()
	if code != want {
		e.t.Fatalf("exit code %d, want %d\n%s", code, want, e.transcript())
	}
	return r
}

func (e *ebb) transcript() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return "--- console\n" + e.stdout.String() + "\n--- stderr\n" + e.stderr.String()
}

// kernelArgs are the options that boot a guest with workloads (empty: a shell).
func kernelArgs(series, format, workloads string) []string {
	return imageArgs(images.Small[series], format, workloads)
}

// programArgs are the options that boot a guest for workloads that need programs.
func programArgs(series, workloads string) []string {
	return append(imageArgs(images.WithPrograms[series], "vmlinux", workloads), "--memory", "768M")
}

func imageArgs(img guest.Image, format, workloads string) []string {
	kernel := img.Kernel.BzImage
	if format == "vmlinux" {
		kernel = img.Kernel.Vmlinux
	}
	cmdline := "console=ttyS0 quiet panic=-1"
	if workloads != "" {
		cmdline += " ebb.run=" + workloads
	}
	return []string{"run", "--kernel", kernel, "--initrd", img.Initrd, "--append", cmdline}
}

// makeImage creates a sparse image.
func makeImage(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}
