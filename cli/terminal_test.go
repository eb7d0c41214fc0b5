package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// terminal is a pseudo-terminal with a person at it.
type terminal struct {
	t               *testing.T
	person, program *os.File
	shows           lockedBuffer
	before          unix.Termios
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs pseudo-terminals: ", err)
	}
	fd := int(person.Fd())
	noError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n := must[int](t)(unix.IoctlGetInt(fd, unix.TIOCGPTN))
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	noError(t, err)
	m := &terminal{t: t, person: person, program: program}
	m.before = *m.modes()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		buf := make([]byte, 4096)
		for {
			// EIO once nobody has the other end any more.
			n, err := person.Read(buf)
			if err != nil {
				return
			}
			m.shows.Write(buf[:n])
		}
	}()
	t.Cleanup(func() { program.Close(); <-reading; person.Close() })
	return m
}

func (m *terminal) modes() *unix.Termios {
	m.t.Helper()
	return must[*unix.Termios](m.t)(unix.IoctlGetTermios(int(m.program.Fd()), unix.TCGETS))
}

// raw reports whether keys reach a program one by one and unchanged.
func (m *terminal) raw() bool {
	modes := m.modes()
	return modes.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG|unix.IEXTEN) == 0 && modes.Iflag&(unix.ICRNL|unix.IXON) == 0
}

func (m *terminal) wantRestored() {
	m.t.Helper()
	if now := *m.modes(); now != m.before {
		m.t.Errorf("the terminal is not as it was: %+v, before %+v", now, m.before)
	}
}

func (m *terminal) typed(keys string) {
	m.t.Helper()
	must[int](m.t)(m.person.WriteString(keys))
}

// run starts ebb on the terminal and waits until its guest has said ready.
func (m *terminal) run(code []byte, args ...string) *process {
	m.t.Helper()
	lab.NeedKVM(m.t)
	p := setup{stdin: m.program, stdout: m.program}.start(m.t,
		append([]string{"run", "--memory", "16M", "--kernel", kernel(m.t, m.t.TempDir(), code)}, args...)...)
	p.await("the guest", m.shows.has("ready"))
	return p
}

func TestTerminalIsRestored(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   []byte
		keys   string
		signal os.Signal
		exit   int
		says   string
	}{
		{name: "power off", code: obedient(), keys: "p", exit: 0},
		{name: "reset", code: obedient(), keys: "r", exit: 3},
		{name: "panic", code: obedient(), keys: "x", exit: 4, says: "panicked"},
		{name: "Ctrl-A x", code: obedient(), keys: "\x01x", exit: 1, says: "the guest was stopped"},
		{name: "Ctrl-A x, the guest takes no input", code: deaf(), keys: "hello?\r\x01x", exit: 1, says: "the guest was stopped"},
		{name: "SIGTERM", code: obedient(), signal: unix.SIGTERM, exit: 1, says: "the guest was stopped"},
		{name: "SIGINT", code: obedient(), signal: unix.SIGINT, exit: 1, says: "the guest was stopped"},
		{name: "SIGHUP", code: obedient(), signal: unix.SIGHUP, exit: 1, says: "the guest was stopped"},
		{name: "SIGQUIT", code: obedient(), signal: unix.SIGQUIT, exit: 1, says: "the guest was stopped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTerminal(t)
			p := m.run(c.code, "--no-reboot")
			if !m.raw() {
				t.Error("the terminal is not raw while the guest runs")
			}
			if c.signal != nil {
				p.signal(c.signal)
			} else {
				m.typed(c.keys)
			}
			p.wantExit(c.exit)
			m.wantRestored()
			if said := p.stderr.String(); !strings.Contains(said, c.says) || c.says == "" && said != "" {
				t.Errorf("stderr is %q, want %q", said, c.says)
			}
		})
	}
}

// What is only found once the terminal is raw.
func TestTerminalIsRestoredAfterFailedStart(t *testing.T) {
	lab.NeedKVM(t)
	m := newTerminal(t)
	p := setup{dir: world(t), stdin: m.program, stdout: m.program}.start(t, with("--initrd", "big.initrd")...)
	p.wantExit(1)
	p.wantComplaint("big.initrd")
	m.wantRestored()
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	m := newTerminal(t)
	p := setup{steps: "hung", stdin: m.program}.start(t)
	p.await("raw mode", m.raw)
	p.signal(unix.SIGTERM)
	p.await("the first signal's effect", p.stdout.has("stopping"))
	if !m.raw() {
		t.Error("the terminal is restored while the guest is still there")
	}
	p.signal(unix.SIGTERM)
	p.wantExit(1)
	m.wantRestored()
	if said := p.stderr.String(); !strings.Contains(said, "without waiting for the disks") {
		t.Errorf("stderr is %q", said)
	}
}

// The guest gets every key but ebb's own, whatever the terminal would do with it.
func TestKeysReachTheGuest(t *testing.T) {
	m := newTerminal(t)
	p := m.run(obedient())
	m.typed("a\r\x03\x04\x11\x13\x1a\x1c\x7f\x01\x01\x01h\x01zb")
	want := "readya\r\x03\x04\x11\x13\x1a\x1c\x7f\x01b"
	p.await("the echo", m.shows.has(want))
	if !strings.Contains(p.stderr.String(), "Ctrl-A x") {
		t.Error("Ctrl-A h showed no help")
	}
	m.typed("p")
	p.wantExit(0)
}

// A shell sets the terminal's modes while ebb is stopped.
func TestContinued(t *testing.T) {
	m := newTerminal(t)
	p := m.run(obedient())
	p.signal(unix.SIGSTOP)
	p.await("the stop", func() bool { return p.stopped() })
	noError(t, unix.IoctlSetTermios(int(m.program.Fd()), unix.TCSETS, &m.before))
	p.signal(unix.SIGCONT)
	p.await("raw mode again", m.raw)
	m.typed("p")
	p.wantExit(0)
	m.wantRestored()
}

// stopped reports whether the process is, by its state in /proc.
func (p *process) stopped() bool {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "T")
}

func TestControllingTerminal(t *testing.T) {
	lab.NeedKVM(t)
	m := newTerminal(t)
	p := setup{session: true, stdin: m.program, stdout: m.program}.start(t,
		"run", "--memory", "16M", "--kernel", kernel(t, t.TempDir(), obedient()))
	p.await("the guest", m.shows.has("ready"))
	if !m.raw() {
		t.Error("the terminal is not raw while the guest runs")
	}
	m.typed("p")
	p.wantExit(0)
}

// The shell's `ebb run ... &`: the terminal is another's.
func TestBackground(t *testing.T) {
	lab.NeedKVM(t)
	for _, console := range []string{"stdio", "none"} {
		m := newTerminal(t)
		p := setup{steps: "background", session: true, stdin: m.program}.start(t,
			"run", "--memory", "16M", "--console", console, "--kernel", kernel(t, t.TempDir(), join(powerOff, halt)))
		if console == "none" {
			p.wantExit(0)
			continue
		}
		p.wantExit(1)
		p.wantComplaint("--console stdio", "background", "--console none")
	}
}
