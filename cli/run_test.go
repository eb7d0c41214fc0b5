package cli

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// pipe returns a pipe's ends; the test closes them at its end.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	noError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestExitCodes(t *testing.T) {
	lab.NeedKVM(t)
	image := filepath.Join(t.TempDir(), "a.img")
	noError(t, os.WriteFile(image, make([]byte, 4096), 0o600))
	for _, c := range []struct {
		name string
		code []byte
		args []string
		exit int
		says string // on stderr
	}{
		{"power off", join(say("ready"), powerOff, halt), nil, 0, ""},
		{"power off with two vCPUs and a disk", join(say("ready"), powerOff, halt), []string{"--cpus", "2", "--disk", "path=" + image}, 0, ""},
		{"power off with Linux AIO", join(say("ready"), powerOff, halt), []string{"--aio", "native", "--disk", "path=" + image}, 0, ""},
		{"power off with threads", join(say("ready"), powerOff, halt), []string{"--aio", "threads", "--disk", "path=" + image}, 0, ""},
		{"reset", join(say("ready"), reset, halt), []string{"--no-reboot"}, 3, ""},
		{"panic", join(say("ready"), panicked, halt), nil, 4, "panicked"},
		{"triple fault", join(say("ready"), []byte{0x0f, 0x01, 0x1d, 0, 0, 0x20, 0, 0x0f, 0x0b}), []string{"--no-reboot"}, 3, "triple fault"},
	} {
		t.Run(c.name, func(t *testing.T) {
			runtime := t.TempDir()
			p := setup{runtime: runtime}.start(t, append([]string{"run", "--memory", "16M", "--console", "stdio", "--kernel", kernel(t, t.TempDir(), c.code)}, c.args...)...)
			p.wantExit(c.exit)
			if got := p.stdout.String(); got != "ready" {
				t.Errorf("the console showed %q", got)
			}
			if got := p.stderr.String(); !strings.Contains(got, c.says) || c.says == "" && got != "" {
				t.Errorf("stderr is %q, want %q", got, c.says)
			}
			noLocks(t, runtime)
		})
	}
}

func TestInputFromPipe(t *testing.T) {
	lab.NeedKVM(t)
	r, w := pipe(t)
	p := setup{stdin: r}.start(t, "run", "--memory", "16M", "--kernel", kernel(t, t.TempDir(), obedient()))
	// From a pipe Ctrl-A is a byte like any other.
	must[int](t)(io.WriteString(w, "a\x01xb"))
	p.wantExit(4)
	if got := p.stdout.String(); got != "readya\x01" {
		t.Errorf("the console showed %q", got)
	}
}

// A reset boots again, until something else ends the guest.
func TestReboot(t *testing.T) {
	lab.NeedKVM(t)
	r, w := pipe(t)
	p := setup{stdin: r}.start(t, "run", "--memory", "16M", "--kernel", kernel(t, t.TempDir(), obedient()))
	for i, key := range []string{"r", "r", "p"} {
		p.await("the next boot", p.stdout.has(strings.Repeat("ready", i+1)))
		must[int](t)(io.WriteString(w, key))
	}
	p.wantExit(0)
	if got := p.stdout.String(); got != "readyreadyready" {
		t.Errorf("the console showed %q", got)
	}
}

func TestEndOfInput(t *testing.T) {
	lab.NeedKVM(t)
	code := obedient()
	r, w := pipe(t)
	p := setup{stdin: r}.start(t, "run", "--memory", "16M", "--kernel", kernel(t, t.TempDir(), code))
	must[int](t)(io.WriteString(w, "bye"))
	w.Close()
	p.await("Ctrl-D after the last byte", p.stdout.has("readybye\x04"))
	p.signal(unix.SIGTERM)
	p.wantExit(1)
}

// Nobody reads the console any more: the guest goes on.
func TestBrokenPipe(t *testing.T) {
	lab.NeedKVM(t)
	in, typing := pipe(t)
	reading, stdout := pipe(t)
	p := setup{stdin: in, stdout: stdout}.start(t, "run", "--memory", "16M", "--kernel", kernel(t, t.TempDir(), obedient()))
	stdout.Close()
	buf := make([]byte, 5)
	must[int](t)(io.ReadFull(reading, buf))
	reading.Close()
	must[int](t)(io.WriteString(typing, strings.Repeat("echo", 10)+"p"))
	p.wantExit(0)
}

func TestConsoleFile(t *testing.T) {
	lab.NeedKVM(t)
	for name, c := range map[string]struct {
		before *string
		code   []byte
		want   string
	}{
		"new":               {nil, join(say("new"), powerOff, halt), "new"},
		"old is replaced":   {ptr("old and longer"), join(say("new"), powerOff, halt), "new"},
		"silent, new":       {nil, join(powerOff, halt), ""},
		"silent, old":       {ptr("old"), join(powerOff, halt), ""},
		"panic keeps it":    {nil, join(say("oops"), panicked, halt), "oops"},
		"longer than a bit": {nil, join(say(strings.Repeat("0123456789", 50)), powerOff, halt), strings.Repeat("0123456789", 50)},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "console")
			if c.before != nil {
				noError(t, os.WriteFile(file, []byte(*c.before), 0o600))
			}
			setup{}.start(t, "run", "--memory", "16M", "--console", "file:"+file, "--kernel", kernel(t, t.TempDir(), c.code)).exit()
			if got := string(must[[]byte](t)(os.ReadFile(file))); got != c.want {
				t.Errorf("the file has %q, want %q", got, c.want)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestConsoleNone(t *testing.T) {
	lab.NeedKVM(t)
	p := setup{}.start(t, "run", "--memory", "16M", "--console", "none", "--kernel", kernel(t, t.TempDir(), join(say("x"), powerOff, halt)))
	p.wantExit(0)
	if p.stdout.String()+p.stderr.String() != "" {
		t.Errorf("something was printed: %s", p)
	}
}

// Two VMs of one name, one after the other and at once.
func TestNameInUse(t *testing.T) {
	lab.NeedKVM(t)
	runtime, k := t.TempDir(), kernel(t, t.TempDir(), obedient())
	args := []string{"run", "--memory", "16M", "--name", "web", "--kernel", k}
	r, w := pipe(t)
	first := setup{runtime: runtime, stdin: r}.start(t, args...)
	first.await("the first guest", first.stdout.has("ready"))
	second := setup{runtime: runtime}.start(t, args...)
	second.wantExit(1)
	if want := "ebb: --name web: another VM on this host has this name; choose a different one\n"; second.stderr.String() != want {
		t.Errorf("stderr is %q", second.stderr.String())
	}
	must[int](t)(io.WriteString(w, "p"))
	first.wantExit(0)
	noLocks(t, runtime)

	// A killed process leaves a file, but no claim.
	killed := setup{runtime: runtime, stdin: r}.start(t, args...)
	killed.await("the killed guest", killed.stdout.has("ready"))
	killed.signal(unix.SIGKILL)
	killed.exit()
	third := setup{runtime: runtime, stdin: r}.start(t, args...)
	third.await("the third guest", third.stdout.has("ready"))
	must[int](t)(io.WriteString(w, "p"))
	third.wantExit(0)
}

// What the command line says wins over the file; their disks add up.
func TestConfig(t *testing.T) {
	lab.NeedKVM(t)
	dir := world(t)
	noError(t, os.WriteFile(filepath.Join(dir, "vm.conf"), []byte("# a VM\nkernel kernel\nmemory = 17M\n--cpus=2\nno-reboot\ndisk path=a.img\n"), 0o600))
	r, w := pipe(t)
	p := setup{dir: dir, stdin: r}.start(t, "run", "--config", "vm.conf", "--memory", "16M")
	must[int](t)(io.WriteString(w, "r"))
	p.wantExit(3)

	p = setup{dir: dir}.start(t, "run", "--config", "vm.conf", "--memory", "16M", "--disk", "path=nowhere.img")
	p.wantExit(1)
	p.wantComplaint("--disk vdb", "nowhere.img")

	p = setup{dir: dir, stdin: r}.start(t, "run", "--config", "vm.conf", "--memory", "16M", "--no-reboot=false")
	must[int](t)(io.WriteString(w, "r"))
	p.await("the second boot", p.stdout.has("readyready")) // a reset loses what the UART has
	must[int](t)(io.WriteString(w, "p"))
	p.wantExit(0)
}

// The help is on stdout, and no failure.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"help"}, {"--help"}, {"run", "--help"}, {"run", "-h"}, {"help", "run"}, {"check", "--help"}} {
		p := setup{}.start(t, args...)
		p.wantExit(0)
		if !strings.Contains(p.stdout.String(), "USAGE:") || p.stderr.String() != "" {
			t.Errorf("no help from %s", p)
		}
	}
}

// A help can be read on a terminal, that of a command within a command too, and has each key of a disk.
func TestHelpIsReadable(t *testing.T) {
	var names [][]string
	for _, c := range commands() {
		names = append(names, []string{c.Name})
		for _, s := range c.Subcommands {
			names = append(names, []string{c.Name, s.Name})
		}
	}
	for _, name := range names {
		p := setup{}.start(t, append([]string{"help"}, name...)...)
		p.wantExit(0)
		help := p.stdout.String()
		if want := "ebb " + strings.Join(name, " ") + " - "; !strings.Contains(help, want) {
			t.Errorf("help %s: it is of another command: %s", name, help)
		}
		for line := range strings.Lines(help) {
			if n := utf8.RuneCountInString(line) - 1; n > helpWidth {
				t.Errorf("help %s: a line of %d columns: %s", name, n, line)
			}
		}
		for _, key := range diskKeys {
			if slices.Contains([]string{"run", "disk add"}, strings.Join(name, " ")) && !regexp.MustCompile(`(?m)^ +`+key+`[ =].*  `).MatchString(help) {
				t.Errorf("help %s: no line for the disk key %s", name, key)
			}
		}
	}
	for _, args := range [][]string{{"help", "disk", "grow"}, {"help", "discs", "add"}} {
		p := setup{}.start(t, args...)
		p.wantExit(2)
		p.wantComplaint("`ebb help`")
	}
}

// What check prints agrees with its exit code.
func TestCheck(t *testing.T) {
	p := setup{}.start(t, "check")
	code := p.exit()
	lines := strings.Split(strings.TrimSpace(p.stdout.String()), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "kvm ") || !strings.HasPrefix(lines[1], "uring ") {
		t.Fatalf("unexpected output: %s", p)
	}
	good := strings.Contains(lines[0], " ok") && strings.Contains(lines[1], " ok")
	if want := map[bool]int{true: 0, false: 1}[good]; code != want {
		t.Errorf("exit code %d, want %d: %s", code, want, p)
	}
}

// A host without io_uring runs guests all the same, and both commands say by what.
func TestOtherEngine(t *testing.T) {
	p := setup{steps: "no-uring"}.start(t, "check")
	p.exit()
	lines := strings.Split(strings.TrimSpace(p.stdout.String()), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "uring   no: io_uring is refused") || lines[2] != "native  ok" {
		t.Errorf("unexpected output: %s", p)
	}
	lab.NeedKVM(t)
	p = setup{steps: "no-uring"}.start(t, "run", "--memory", "16M", "--kernel", kernel(t, t.TempDir(), join(powerOff, halt)))
	p.wantExit(0)
	if said := p.stderr.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "engine=native") {
		t.Errorf("stderr is %q", said)
	}
}
