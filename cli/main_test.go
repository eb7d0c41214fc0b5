package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// limit is how long anything in these tests may take before it has hung.
const limit = 60 * time.Second

// The test binary is ebb too, so that what is tested is a real process: asEbb
// says so, and lists what is to be done before, separated by spaces.
const asEbb = "EBB_TEST_AS_EBB"

func TestMain(m *testing.M) {
	steps, isEbb := os.LookupEnv(asEbb)
	if !isEbb {
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if code == 0 {
			code = lab.Rest(lab.Options{})
		}
		os.Exit(code)
	}
	for _, s := range strings.Fields(steps) {
		if err := step(s); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", s, err)
			os.Exit(99)
		}
	}
	os.Exit(Main(os.Args))
}

const nobody = 65534

// step changes what this process sees of the host.
func step(s string) error {
	const ownMounts = unix.MS_REC | unix.MS_PRIVATE
	name, arg, _ := strings.Cut(s, "=")
	switch name {
	case "nobody": // an ordinary user without groups
		return errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody))
	case "empty-dev":
		return errors.Join(unix.Mount("", "/", "", ownMounts, ""), unix.Mount("tmpfs", "/dev", "tmpfs", 0, ""))
	case "empty-run":
		return errors.Join(unix.Mount("", "/", "", ownMounts, ""), unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"))
	case "no-runtime-dir":
		return os.Unsetenv("XDG_RUNTIME_DIR")
	case "file-as-kvm":
		return os.WriteFile("/dev/kvm", nil, 0o600)
	case "read-only-mount":
		here, err := os.Getwd()
		return errors.Join(err,
			unix.Mount("", "/", "", ownMounts, ""),
			unix.Mount(arg, arg, "", unix.MS_BIND, ""),
			unix.Mount("", arg, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""),
			os.Chdir(here)) // if that is arg, into the mount
	case "no-uring":
		return refuse(unix.SYS_IO_URING_SETUP)
	case "no-aio":
		return refuse(unix.SYS_IO_SETUP)
	case "background": // of the terminal, whose foreground is this process
		os.Exit(inNewGroup())
	case "hung": // a machine that doesn't end
		runHung()
	}
	return fmt.Errorf("no such step")
}

// inNewGroup runs ebb in a process group of its own and returns its exit code.
func inNewGroup() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), asEbb+"=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode()
}

// runHung does with the terminal and signals what a run does, for a guest whose
// end never comes.
func runHung() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGTERM)
	restore, err := rawTerminal(os.Stdin)
	if err != nil {
		panic(err)
	}
	endOnSignals(signals, sayStop{}, restore)
	select {}
}

type sayStop struct{}

func (sayStop) Input([]byte) error { return nil }
func (sayStop) Stop()              { fmt.Println("stopping") }

// process is a running ebb.
type process struct {
	*exec.Cmd
	t      *testing.T
	stdout lockedBuffer
	stderr lockedBuffer
	ended  chan struct{}
}

// setup is how to start it. The zero value is as any user starts it.
type setup struct {
	steps   string
	mounts  bool     // in a mount namespace of its own
	stdin   *os.File // nil: /dev/null
	stdout  *os.File // nil: collected
	runtime string   // XDG_RUNTIME_DIR; empty: a new one
	dir     string
	session bool // with stdin as its controlling terminal
}

func (s setup) start(t *testing.T, args ...string) *process {
	t.Helper()
	if os.Getuid() != 0 && (s.mounts || strings.Contains(s.steps, "nobody")) {
		t.Skip("needs root to change user or mounts")
	}
	if s.runtime == "" {
		s.runtime = t.TempDir()
	}
	p := &process{Cmd: exec.Command(os.Args[0], args...), t: t, ended: make(chan struct{})}
	p.Env = append(os.Environ(), asEbb+"="+s.steps, "XDG_RUNTIME_DIR="+s.runtime,
		"GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE")) // the race detector's ebb would take a second to end
	p.Dir = s.dir
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setsid: s.session, Setctty: s.session}
	if s.mounts {
		p.SysProcAttr.Cloneflags = unix.CLONE_NEWNS
	}
	if s.stdin != nil {
		p.Stdin = s.stdin
	}
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	if s.stdout != nil {
		p.Stdout = s.stdout
	}
	if err := p.Start(); err != nil {
		if s.mounts && errors.Is(err, unix.EPERM) {
			t.Skip("this environment has no mount namespaces:", err)
		}
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.Wait()
	}()
	t.Cleanup(func() { _ = p.Process.Kill(); <-p.ended })
	return p
}

// exit waits for the end and returns the exit code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.overdue("ebb's end")
	}
	return p.ProcessState.ExitCode()
}

func (p *process) wantExit(code int) {
	p.t.Helper()
	if got := p.exit(); got != code {
		p.t.Fatalf("exit code %d, want %d\n%s", got, code, p)
	}
}

// await polls until done, and fails at ebb's end.
func (p *process) await(what string, done func() bool) {
	p.t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(time.Millisecond) {
		select {
		case <-p.ended:
			if done() {
				return
			}
			p.t.Fatalf("%s: not before ebb ended (%v)\n%s", what, p.ProcessState, p)
		default:
		}
		if time.Now().After(end) {
			p.overdue(what)
		}
	}
}

// overdue fails, and says where ebb stands, with the goroutines, which the Go runtime adds to its standard error.
func (p *process) overdue(what string) {
	p.t.Helper()
	where := lab.Standing(p.Process.Pid)
	_ = p.Process.Signal(unix.SIGABRT)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
	}
	p.t.Fatalf("%s: not within %v\n%s\n%s", what, limit, where, p)
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) String() string {
	return fmt.Sprintf("ebb %q\nstdout: %s\nstderr: %s", p.Args[1:], p.stdout.String(), p.stderr.String())
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *lockedBuffer) has(s string) func() bool {
	return func() bool { return strings.Contains(b.String(), s) }
}

// publicDir makes a directory that every user can reach, which t.TempDir isn't.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
