package cli

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli/control"
)

func TestTopRates(t *testing.T) {
	held := 2
	at := func(pid int, seconds float64, requests uint64) topSample {
		c := control.ClassStats{Requests: requests, Bytes: requests * 512, Errors: requests / 2}
		return topSample{
			control.Info{Name: "web", PID: pid, State: "running"},
			control.Stats{
				Uptime: seconds, Engine: control.EngineStats{InFlight: 5, Capacity: 64},
				Disks: []control.DiskStats{
					{ID: "vda", InFlight: 4, GraceP95: 1500 * time.Microsecond, Read: c},
					{ID: "vdb", InFlight: 1, Window: &held, Write: c, Long: c},
				},
			},
		}
	}
	added := at(1, 2, 200)
	added.stats.Disks = append(added.stats.Disks, control.DiskStats{ID: "vdc", Read: control.ClassStats{Requests: 9}})
	none := []string{
		"web (running) - - - - - - 5 64",
		"web vda - - - - - - 4 - 1.5ms",
		"web vdb - - - - - - 1 2 -",
	}
	for name, c := range map[string]struct {
		before, now topSample
		want        []string
	}{
		"first":      {topSample{}, at(1, 1, 100), none},
		"another VM": {at(1, 1, 100), at(2, 2, 300), none},
		"no time":    {at(1, 1, 100), at(1, 1, 100), none},
		"the next one": {at(1, 1, 100), at(1, 3, 300), []string{
			"web (running) 100 100 100 50K 50K 150 5 64",
			"web vda 100 0 0 50K 0 50 4 - 1.5ms",
			"web vdb 0 100 100 0 50K 100 1 2 -",
		}},
		"booted again": {at(1, 1, 100), at(1, 3, 40), []string{
			"web (running) 0 0 0 0 0 0 5 64",
			"web vda - - - - - - 4 - 1.5ms",
			"web vdb - - - - - - 1 2 -",
		}},
		"a new disk": {at(1, 1, 100), added, []string{
			"web (running) 100 100 100 50K 50K 150 5 64",
			"web vda 100 0 0 50K 0 50 4 - 1.5ms",
			"web vdb 0 100 100 0 50K 100 1 2 -",
			"web vdc - - - - - - 0 - -",
		}},
	} {
		var got []string
		for _, l := range topLines(c.before, c.now) {
			if len(l) > len(topHeader) {
				t.Errorf("%s: wider than the header: %q", name, l)
			}
			got = append(got, strings.Join(strings.Fields(l), " "))
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

// Into a pipe, lines follow each other until the VM is gone.
func TestTopInPipe(t *testing.T) {
	v := startVM(t, obedient(), "--disk", "path="+image(t))
	one, all := setup{runtime: v.runtime}.start(t, "top", "web"), setup{runtime: v.runtime}.start(t, "top")
	for _, p := range []*process{one, all} {
		p.await("three seconds' lines", func() bool { return strings.Count(p.stdout.String(), " vda ") >= 3 })
	}
	v.types("p")
	v.wantExit(0)
	one.wantExit(0)
	all.signal(unix.SIGTERM)
	all.wantExit(0)
	for _, p := range []*process{one, all} {
		lines := strings.Split(p.stdout.String(), "\n")
		if lines[0] != topHeader || strings.Count(p.stdout.String(), "READ/s") != 1 || strings.Contains(p.stdout.String(), "\x1b") {
			t.Errorf("the lines are %q", lines)
		}
		if p.stderr.String() != "" {
			t.Errorf("stderr is %q", p.stderr.String())
		}
	}
}

func TestTopOnTerminal(t *testing.T) {
	v := startVM(t, obedient(), "--disk", "path="+image(t))
	for _, c := range []struct {
		name string
		end  func(*terminal, *process)
	}{
		{"q", func(m *terminal, _ *process) { m.typed("xq") }},
		{"Ctrl-C", func(m *terminal, _ *process) { m.typed("\x03") }},
		{"SIGTERM", func(_ *terminal, p *process) { p.signal(unix.SIGTERM) }},
		{"SIGHUP", func(_ *terminal, p *process) { p.signal(unix.SIGHUP) }},
		{"the VM's end", func(*terminal, *process) { v.types("p") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTerminal(t)
			p := setup{runtime: v.runtime, stdin: m.program, stdout: m.program}.start(t, "top", "web")
			p.await("the table", m.shows.has("vda"))
			p.await("raw mode", m.raw)
			if shown := m.shows.String(); !strings.HasPrefix(shown, "\x1b[?1049h\x1b[?25l\x1b[H"+topHeader[:40]) {
				t.Errorf("the terminal showed %q", shown)
			}
			c.end(m, p)
			p.wantExit(0)
			m.wantRestored()
			must[int](t)(m.program.WriteString("$ ")) // the shell's next prompt stands where it stood before
			for deadline := time.Now().Add(limit); !m.shows.has("\x1b[?25h\x1b[?1049l$ ")(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the screen is not given back: %q", m.shows.String())
				}
			}
		})
	}
}

// A small terminal is not overrun.
func TestTopCutsLines(t *testing.T) {
	v := startVM(t, obedient(), "--disk", "path="+image(t))
	m := newTerminal(t)
	noError(t, unix.IoctlSetWinsize(int(m.person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 2, Col: 20}))
	p := setup{runtime: v.runtime, stdin: m.program, stdout: m.program}.start(t, "top", "web")
	p.await("the table", m.shows.has("\x1b[J"))
	frame, _, _ := strings.Cut(m.shows.String(), "\x1b[J")
	_, frame, _ = strings.Cut(frame, "\x1b[H")
	if want := topHeader[:20] + "\x1b[K\r\nweb              (ru\x1b[K"; strings.ReplaceAll(frame, "\r\r\n", "\r\n") != want {
		t.Errorf("the frame is %q, want %q", frame, want)
	}
	m.typed("q")
	p.wantExit(0)
}

// The shell's `ebb top &`: no keys, and the terminal's modes are not touched.
func TestTopInBackground(t *testing.T) {
	v := startVM(t, obedient(), "--disk", "path="+image(t))
	m := newTerminal(t)
	p := setup{runtime: v.runtime, steps: "background", session: true, stdin: m.program, stdout: m.program}.start(t, "top", "web")
	p.await("the table", m.shows.has("vda"))
	v.types("p")
	p.wantExit(0)
	m.wantRestored()
}
