package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// vmProcess is an ebb with a guest, and its clients.
type vmProcess struct {
	*process
	runtime string
	keys    *os.File
}

// startVM starts the VM web, and waits until its guest has said ready.
func startVM(t *testing.T, code []byte, args ...string) *vmProcess {
	t.Helper()
	lab.NeedKVM(t)
	runtime := publicDir(t)
	r, w := pipe(t)
	p := setup{runtime: runtime, stdin: r}.start(t,
		append([]string{"run", "--memory", "16M", "--name", "web", "--kernel", kernel(t, t.TempDir(), code)}, args...)...)
	p.await("the guest", p.stdout.has("ready"))
	return &vmProcess{p, runtime, w}
}

// ebb runs a client to its end.
func (v *vmProcess) ebb(exit int, args ...string) *process {
	v.t.Helper()
	p := setup{runtime: v.runtime}.start(v.t, args...)
	p.wantExit(exit)
	return p
}

func (v *vmProcess) types(s string) {
	v.t.Helper()
	must[int](v.t)(io.WriteString(v.keys, s))
}

// list returns what ebb list says of the VMs.
func (v *vmProcess) list() (list []control.Info) {
	v.t.Helper()
	noError(v.t, json.Unmarshal([]byte(v.ebb(0, "list", "--json").stdout.String()), &list))
	return list
}

func (v *vmProcess) state() string {
	v.t.Helper()
	if l := v.list(); len(l) == 1 {
		return l[0].State
	}
	return "none"
}

func wantOutput(t *testing.T, p *process, pattern string) {
	t.Helper()
	if got := p.stdout.String(); !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
		t.Errorf("%q printed\n%swant\n%s", p.Args[1:], got, pattern)
	}
}

func image(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.img")
	noError(t, os.WriteFile(path, make([]byte, 4096), 0o600))
	return path
}

func TestList(t *testing.T) {
	v := startVM(t, obedient(), "--cpus", "2", "--disk", "path="+image(t), "--disk", "id=data,path="+image(t))
	list := v.list()
	if len(list) != 1 {
		t.Fatalf("%+v", list)
	}
	i := list[0]
	if i.Uptime <= 0 {
		t.Errorf("uptime %v", i.Uptime)
	}
	i.Uptime = 0
	want := control.Info{Name: "web", PID: v.Process.Pid, State: "running", VCPUs: 2, Memory: 16 << 20, Disks: []string{"vda", "data"}}
	if got, want := fmt.Sprint(i), fmt.Sprint(want); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	wantOutput(t, v.ebb(0, "list"), fmt.Sprintf(
		`NAME +PID +STATE +VCPUS +MEMORY +DISKS +UPTIME\nweb +%d +running +2 +16M +2 +[0-9ms]+\n`, v.Process.Pid))
	v.types("p")
	v.wantExit(0)
	wantOutput(t, v.ebb(0, "list", "--json"), `\[\]\n`)
	wantOutput(t, v.ebb(0, "list"), `NAME .*\n`)
	noLocks(t, v.runtime)
}

func TestStats(t *testing.T) {
	v := startVM(t, obedient(), "--disk", "path="+image(t))
	var s control.Stats
	noError(t, json.Unmarshal([]byte(v.ebb(0, "stats", "web", "--json").stdout.String()), &s))
	if s.Uptime <= 0 || s.Engine.Kind != "uring" || s.Engine.Capacity == 0 || len(s.Disks) != 1 || s.Disks[0].ID != "vda" || s.Disks[0].Window != nil {
		t.Errorf("%+v", s)
	}
	wantOutput(t, v.ebb(0, "stats", "web"), `engine uring: capacity \d+, demand 0, in flight 0, lent 0, written off 0\n(?s:.*DISK .*vda .*read .*write .*long .*)`)
}

func TestPauseAndResume(t *testing.T) {
	v := startVM(t, obedient())
	for range 2 { // the second changes nothing
		v.ebb(0, "pause", "web")
		if s := v.state(); s != "paused" {
			t.Errorf("state %s", s)
		}
	}
	v.types("hello")
	v.ebb(1, "stop", "web").wantComplaint("web is paused", "`ebb resume web`")
	for range 2 {
		v.ebb(0, "resume", "web")
	}
	v.await("the guest to go on", v.stdout.has("hello"))
	if s := v.state(); s != "running" {
		t.Errorf("state %s", s)
	}
}

// When stop returns everything is given back.
func TestStop(t *testing.T) {
	untilButton := join(movDX(0x600), []byte{0x66, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xf9}) // in ax, dx; test ah, 1; jz in
	v := startVM(t, join(say("ready"), untilButton, powerOff, halt))
	p := v.ebb(0, "stop", "web")
	if got := p.stderr.String(); got != "ebb: waiting up to 30s for the guest of web to power off\n" {
		t.Errorf("stderr is %q", got)
	}
	noLocks(t, v.runtime)
	v.wantExit(0)
}

func TestStopInVain(t *testing.T) {
	v := startVM(t, obedient())
	p := v.ebb(1, "stop", "web", "--timeout", "3s") // within which the VM has to answer
	if got := p.stderr.String(); !strings.HasSuffix(got, "\nebb: web did not power off within 3s; `ebb kill web` pulls its plug\n") {
		t.Errorf("stderr is %q", got)
	}
	// A guest that ends otherwise meanwhile.
	p = setup{runtime: v.runtime}.start(t, "stop", "--timeout=1m", "web")
	p.await("the wait", p.stderr.has("waiting"))
	v.types("x")
	p.wantExit(1)
	if !strings.Contains(p.stderr.String(), "not by powering off (panicked)") {
		t.Errorf("stderr is %q", p.stderr.String())
	}
	v.wantExit(4)
}

func TestKill(t *testing.T) {
	for _, paused := range []bool{false, true} {
		v := startVM(t, obedient())
		if paused {
			v.ebb(0, "pause", "web")
		}
		p := v.ebb(0, "kill", "web")
		if p.stdout.String()+p.stderr.String() != "" {
			t.Errorf("something was printed: %s", p)
		}
		noLocks(t, v.runtime)
		v.wantExit(1)
		if got := v.stderr.String(); got != "ebb: the guest was stopped\n" {
			t.Errorf("stderr is %q", got)
		}
		v.ebb(1, "kill", "web").wantComplaint("no VM web", "`ebb list`")
	}
}

// What a process leaves that was killed is nobody's.
func TestDeadVM(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "s")
	v := startVM(t, obedient(), "--control", elsewhere)
	v.signal(unix.SIGKILL)
	v.exit()
	if s := v.state(); s != "none" {
		t.Errorf("state %s", s)
	}
	v.ebb(1, "stats", "web").wantComplaint("web runs no more", "`ebb list`")
	v.ebb(1, "stop", elsewhere).wantComplaint("runs no more", "`ebb list`")
	again := setup{runtime: v.runtime, stdin: v.Stdin.(*os.File)}.start(t, v.Args[1:]...)
	again.await("the guest", again.stdout.has("ready"))
	if s := v.state(); s != "running" {
		t.Errorf("state %s", s)
	}
	v.types("p")
	again.wantExit(0)
	noLocks(t, v.runtime)
}

// A process that doesn't run can't answer: the others do.
func TestStoppedProcess(t *testing.T) {
	v := startVM(t, obedient())
	v.signal(unix.SIGSTOP)
	v.await("the stop", v.stopped)
	wantOutput(t, v.ebb(0, "list"), `NAME .*\nweb +- +no answer +- +- +- +-\n`)
	v.signal(unix.SIGCONT)
	if s := v.state(); s != "running" {
		t.Errorf("state %s", s)
	}
}

func TestControlPath(t *testing.T) {
	dir := t.TempDir()
	lab.NeedKVM(t)
	runtime := t.TempDir()
	r, w := pipe(t)
	p := setup{runtime: runtime, stdin: r, dir: dir}.start(t, "run", "--memory", "16M", "--control", "sock", "--name", "web", "--kernel", kernel(t, dir, obedient()))
	p.await("the guest", p.stdout.has("ready"))
	for _, name := range []string{"web", "./sock", dir + "/sock"} {
		q := setup{runtime: runtime, dir: dir}.start(t, "stats", name)
		q.wantExit(0)
	}
	if info, err := os.Stat(dir + "/sock"); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, error %v", info, err)
	}
	must[int](t)(io.WriteString(w, "p"))
	p.wantExit(0)
	noLocks(t, runtime)
	for path := range snapshot(t, dir) {
		if path != dir && filepath.Base(path) != "kernel" {
			t.Errorf("%s was left", path)
		}
	}
}

func TestOtherUser(t *testing.T) {
	v := startVM(t, obedient())
	nobody := func(args ...string) *process {
		p := setup{runtime: v.runtime, steps: "nobody"}.start(t, args...)
		p.wantExit(1)
		return p
	}
	nobody("list").wantComplaint("permission denied", "XDG_RUNTIME_DIR")
	nobody("kill", "web").wantComplaint("web is not this user's", "as root")
	// Behind an open door the socket itself is shut.
	noError(t, os.Chmod(filepath.Join(v.runtime, "ebb"), 0o755))
	nobody("kill", "web").wantComplaint("web is not this user's", "as root")
	wantOutput(t, setupExit(t, setup{runtime: v.runtime, steps: "nobody"}, 0, "list"), `NAME .*\nweb +- +no answer .*\n`)
	v.types("p")
	v.wantExit(0)
}

func setupExit(t *testing.T, s setup, exit int, args ...string) *process {
	t.Helper()
	p := s.start(t, args...)
	p.wantExit(exit)
	return p
}

func TestWithoutRuntimeDir(t *testing.T) {
	dir := world(t)
	bare := setup{dir: dir, mounts: true, steps: "empty-run no-runtime-dir nobody"}
	setupExit(t, bare, 1, with("--name", "web")...).wantComplaint("--name web", "/run/ebb", "permission denied", "XDG_RUNTIME_DIR")
	wantOutput(t, setupExit(t, bare, 0, "list"), `NAME .*\n`)
	lab.NeedKVM(t)
	bare.steps = "empty-run no-runtime-dir" // root may make /run/ebb
	noError(t, os.WriteFile(dir+"/kernel", must[[]byte](t)(os.ReadFile(kernel(t, t.TempDir(), join(say("ready"), powerOff, halt)))), 0o600))
	setupExit(t, bare, 0, run16...)
}

func TestBadCommands(t *testing.T) {
	for _, c := range []struct {
		args  string
		exit  int
		parts []string
	}{
		{"list web", 2, []string{`"web"`}},
		{"list --yaml", 2, []string{"--yaml", "`ebb list --help`"}},
		{"stats", 2, []string{"NAME", "ebb stats NAME"}},
		{"stats web db", 2, []string{`"db"`, "ebb stats NAME"}},
		{"stats --json", 2, []string{"NAME"}},
		{"stats --json=perhaps web", 2, []string{"--json=perhaps"}},
		{"stats web --yaml", 2, []string{"--yaml", "`ebb stats --help`"}},
		{"stats web", 1, []string{"no VM web", "`ebb list`"}},
		{"stats a@b", 2, []string{`"a@b"`, "`ebb list`"}},
		{"stats ./nowhere", 1, []string{"./nowhere", "`ebb list`"}},
		{"stats ..", 2, []string{"`ebb list`"}},
		{"stats /dev/null", 1, []string{"/dev/null is no VM's socket"}},
		{"top web", 1, []string{"no VM web", "`ebb list`"}},
		{"top web db", 2, []string{`"db"`}},
		{"pause", 2, []string{"ebb pause NAME"}},
		{"pause web", 1, []string{"no VM web"}},
		{"resume", 2, []string{"ebb resume NAME"}},
		{"resume web", 1, []string{"no VM web"}},
		{"resume web --hard", 2, []string{"--hard"}},
		{"migrate web", 2, []string{"migrate needs tcp:HOST:PORT", "ebb migrate NAME"}},
		{"migrate web host:1", 2, []string{"host:1: write tcp:HOST:PORT"}},
		{"migrate web tcp:host", 2, []string{"tcp:host: write tcp:HOST:PORT"}},
		{"migrate web tcp:host:0 --streams 17", 2, []string{"--streams 17", "1 to 16"}},
		{"migrate web tcp:host:1 --downtime 50", 2, []string{"--downtime 50", "50ms"}},
		{"migrate web tcp:host:1 --stall never", 2, []string{"--stall never", "50ms"}},
		{"migrate web tcp:host:1 --timeout -1s", 2, []string{"--timeout -1s", "10m"}},
		{"migrate web tcp:host:1 --drain fast", 2, []string{"--drain fast", "adaptive, serial or off"}},
		{"migrate web tcp:host:1 --bandwidth 1023K", 2, []string{"--bandwidth 1023K", "1M or more"}},
		{"migrate web tcp:host:1 --on-timeout stop", 2, []string{"--on-timeout stop", "cancel or force"}},
		{"migrate web tcp:host:1 --report=", 2, []string{"--report needs a value"}},
		{"migrate web tcp:host:1 --report nowhere/report", 1, []string{"--report nowhere/report", "no such file or directory"}},
		{"migrate web tcp:host:1 --report /", 1, []string{"--report /", "is a directory"}},
		{"migrate web tcp:host:1 --tls-dir=", 2, []string{"--tls-dir needs a value"}},
		{"migrate web tcp:host:1 --tls-dir . --insecure", 2, []string{"--tls-dir and --insecure", "leave one out"}},
		{"migrate web tcp:host:1", 1, []string{"no VM web", "`ebb list`"}},
		{"receive", 2, []string{"--listen is missing", "tcp:HOST:PORT"}},
		{"receive --listen=", 2, []string{"--listen needs a value"}},
		{"receive --listen tcp:127.0.0.1", 2, []string{"--listen tcp:127.0.0.1", "write tcp:HOST:PORT"}},
		{"receive --listen tcp:127.0.0.1:65536", 2, []string{"--listen tcp:127.0.0.1:65536", "65536 is no TCP port"}},
		{"receive --listen tcp:127.0.0.1:0 --disk-path vda", 2, []string{"--disk-path vda", "ID=FILE"}},
		{"receive --listen tcp:127.0.0.1:0 --disk-path vda=a --disk-path vda=b", 2, []string{"--disk-path vda=b", "given twice"}},
		{"receive --listen tcp:127.0.0.1:0 --disk-dir=", 2, []string{"--disk-dir needs a value"}},
		{"receive --listen tcp:127.0.0.1:0 --disk-dir nowhere", 1, []string{"--disk-dir nowhere", "no such file or directory"}},
		{"receive --listen tcp:127.0.0.1:0 --disk-dir /dev/null", 1, []string{"--disk-dir /dev/null", "not a directory"}},
		{"receive --listen tcp:127.0.0.1:0 --name a@b", 2, []string{`--name "a@b"`, "letters, digits"}},
		{"receive --listen tcp:127.0.0.1:0 --name=", 2, []string{"--name needs a value"}},
		{"receive --listen tcp:127.0.0.1:0 --console screen", 2, []string{"--console screen", "stdio, none or file:FILE"}},
		{"receive --listen tcp:127.0.0.1:0 --control=", 2, []string{"--control needs a value"}},
		{"receive --listen tcp:127.0.0.1:0 --tls-dir . --insecure", 2, []string{"--tls-dir and --insecure", "leave one out"}},
		{"receive --listen tcp:127.0.0.1:0 --tls-dir nowhere", 1, []string{"--tls-dir ", "nowhere can't be used (cert.pem: no such file or directory)"}},
		{"receive --listen tcp:0.0.0.0:0", 1, []string{"beyond this host", "--tls-dir", "--insecure"}},
		{"stop", 2, []string{"ebb stop NAME"}},
		{"stop web", 1, []string{"no VM web"}},
		{"stop web --timeout soon", 2, []string{"--timeout soon", "30s"}},
		{"stop web --timeout -1s", 2, []string{"--timeout -1s", "30s"}},
		{"stop web --timeout 0", 2, []string{"--timeout 0", "30s"}},
		{"stop web --timeout", 2, []string{"--timeout needs a value"}},
		{"stop web --timeout=", 2, []string{"--timeout needs a value"}},
		{"kill", 2, []string{"ebb kill NAME"}},
		{"kill web", 1, []string{"no VM web"}},
		{"disk", 2, []string{"add", "remove", "resize"}},
		{"disk eject web vda", 2, []string{"`ebb disk eject`", "add, remove or resize"}},
		{"disk add", 2, []string{"NAME", "ebb disk add NAME path=FILE"}},
		{"disk add web", 2, []string{"path=FILE"}},
		{"disk add web path=a path=b", 2, []string{`"path=b"`}},
		{"disk add web readonly", 2, []string{"disk add readonly", "path=FILE"}},
		{"disk add web path=a,queues=none", 2, []string{"disk add path=a,queues=none", "queues=none"}},
		{"disk add web path=a --force", 2, []string{"--force", "`ebb disk add --help`"}},
		{"disk add web path=a", 1, []string{"no VM web"}},
		{"disk remove web", 2, []string{"ID"}},
		{"disk remove web ../vda", 2, []string{"../vda", "`ebb stats web`"}},
		{"disk remove web vda --timeout soon", 2, []string{"--timeout soon", "30s"}},
		{"disk remove web vda", 1, []string{"no VM web"}},
		{"disk resize web vda", 2, []string{"SIZE"}},
		{"disk resize web vda big", 2, []string{"disk resize big", "10G"}},
		{"disk resize web vda 0", 2, []string{"0 bytes", "512"}},
		{"disk resize web vda 1000", 2, []string{"1000 bytes", "512"}},
		{"disk resize web vda -- -1G", 2, []string{"-1G", "10G"}},
		{"disk resize web vda 99999999999999T", 2, []string{"99999999999999T", "10G"}},
		{"disk resize web vda 1G", 1, []string{"no VM web"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			setupExit(t, setup{}, c.exit, strings.Fields(c.args)...).wantComplaint(c.parts...)
		})
	}
}

// What a real VM says to wrong requests about its disks.
func TestBadDisk(t *testing.T) {
	v := startVM(t, obedient(), "--disk", "path="+image(t), "--hotplug-slots", "1")
	v.ebb(1, "disk", "remove", "web", "vdb").wantComplaint(`"vdb"`, "`ebb stats`")
	v.ebb(1, "disk", "resize", "web", "vdb", "1G").wantComplaint(`"vdb"`, "`ebb stats`")
	v.ebb(1, "disk", "add", "web", "path=b.img,id=vda").wantComplaint("vda", "id=NAME")
	wantOutput(t, v.ebb(0, "disk", "add", "web", "path="+image(t)), "vdb\n")
	v.ebb(1, "disk", "add", "web", "path="+image(t)).wantComplaint("vdc", "none of 1 hotplug slots", "--hotplug-slots (at most 8)")
}

// Garbage and a flood on the socket are no matter of the guest's.
func TestHostileClient(t *testing.T) {
	v := startVM(t, obedient())
	for i := range 200 {
		c, err := net.Dial("unix", filepath.Join(v.runtime, "ebb", "web.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		switch i % 4 {
		case 0:
			_, _ = io.WriteString(c, "GARBAGE\x00\xff\r\n\r\n")
		case 1:
			_, _ = io.WriteString(c, "POST /v1/kill HTTP/1.1\r\nHost: ebb\r\nContent-Length: 5\r\n\r\nkill!")
		case 2:
			_, _ = io.WriteString(c, "POST /v1/kill HTTP/1.1\r\nHost: ebb\r\nContent-Length: 999999\r\n\r\n{")
			c.Close()
		}
	}
	v.types("abc")
	v.await("the echo", v.stdout.has("abc"))
	v.types("p")
	v.wantExit(0)
	noLocks(t, v.runtime)
}

func TestCompletion(t *testing.T) {
	v := startVM(t, obedient())
	for line, want := range map[string]string{
		"stats": "web", "disk add": "web", "stop web --t": "--timeout", "": "top", "disk": "resize",
	} {
		p := v.ebb(0, append(strings.Fields(line), "--generate-bash-completion")...)
		if !slices.Contains(strings.Fields(p.stdout.String()), want) {
			t.Errorf("%q completes to %q, want %s among it", line, p.stdout.String(), want)
		}
	}
}
