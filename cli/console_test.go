package cli

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeGuest takes input when it listens, and ends after so much of it.
type fakeGuest struct {
	listens chan struct{} // closed when it does
	ends    int           // bytes

	mu    sync.Mutex
	got   []byte
	stops int
}

func newFakeGuest(ends int) *fakeGuest { return &fakeGuest{listens: make(chan struct{}), ends: ends} }

func listening(ends int) *fakeGuest {
	g := newFakeGuest(ends)
	close(g.listens)
	return g
}

func (g *fakeGuest) Input(p []byte) error {
	<-g.listens
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.got) >= g.ends {
		return errors.New("gone")
	}
	g.got = append(g.got, p...)
	return nil
}

func (g *fakeGuest) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stops++
}

func (g *fakeGuest) state() (string, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return string(g.got), g.stops
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// within fails the test if f hangs.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s: not within %v", what, limit)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// reads is a reader whose reads return one element each, and then its error.
type reads struct {
	parts []string
	err   error
}

func (r *reads) Read(p []byte) (int, error) {
	if len(r.parts) == 0 {
		return 0, r.err
	}
	n := copy(p, r.parts[0])
	r.parts = r.parts[1:]
	return n, nil
}

func TestTypeInput(t *testing.T) {
	for _, c := range []struct {
		name     string
		in       []string
		terminal bool
		want     string
		stops    int
	}{
		{"pipe", []string{"one ", "two\x01x"}, false, "one two\x01x\x04\x04\x04", 0},
		{"terminal", []string{"one ", "two\x01\x01"}, true, "one two\x01\x04\x04\x04", 0},
		{"escape over two reads", []string{"one\x01", "xtwo", "three"}, true, "one", 1},
		{"what comes behind is dropped", []string{"one\x01xtwo\x01x"}, true, "one", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := listening(len(c.want))
			within(t, "reading", func() {
				typeInput(&reads{c.in, io.EOF}, c.terminal, g, time.Millisecond, quiet)
			})
			eventually(t, "the input", func() bool { got, _ := g.state(); return len(got) >= len(c.want) })
			if got, stops := g.state(); got != c.want || stops != c.stops {
				t.Errorf("the guest got %q and %d stops, want %q and %d", got, stops, c.want, c.stops)
			}
		})
	}
}

// A guest that takes no input can be ended all the same.
func TestEscapeFromDeafGuest(t *testing.T) {
	g := newFakeGuest(0)
	within(t, "Ctrl-A x", func() {
		typeInput(&reads{[]string{"a", "b", "\r", "\x01", "x"}, io.EOF}, true, g, time.Millisecond, quiet)
	})
	if _, stops := g.state(); stops != 1 {
		t.Errorf("the guest was stopped %d times", stops)
	}
	close(g.listens)
}

// Reading ends when the guest is gone, however much there is to read.
func TestInputEndsWithGuest(t *testing.T) {
	within(t, "the end", func() { typeInput(endless{}, false, listening(100), time.Millisecond, quiet) })
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, "more"), nil }

func TestUnreadableInput(t *testing.T) {
	var said lockedBuffer
	g := listening(1000)
	within(t, "the end", func() {
		typeInput(&reads{[]string{"one"}, os.ErrPermission}, false, g, time.Millisecond, slog.New(slog.NewTextHandler(&said, nil)))
	})
	eventually(t, "the input", func() bool { got, _ := g.state(); return got == "one" })
	if !strings.Contains(said.String(), "permission denied") {
		t.Errorf("the log has %q", said.String())
	}
}

func TestParseConsole(t *testing.T) {
	for in, want := range map[string]consoleSpec{
		"stdio": {stdio: true}, "none": {}, "file:a": {file: "a"}, "file:none": {file: "none"}, "file:/a:b": {file: "/a:b"},
	} {
		if got, err := parseConsole(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "file:", "file", "STDIO", "pty", "none "} {
		if _, err := parseConsole(in); !errors.As(err, &usageError{}) {
			t.Errorf("%q: %v is no usage error", in, err)
		}
	}
}

func TestLateWriter(t *testing.T) {
	var w lateWriter
	var passed io.Writer = &w
	var b bytes.Buffer
	w.Writer = &b
	if n, err := passed.Write([]byte("x")); n != 1 || err != nil || b.String() != "x" {
		t.Errorf("%d, %v, %q", n, err, b.String())
	}
}

// A file is as it was until the guest has run or written.
func TestConsoleFileUndone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	read := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			return "none"
		}
		return string(b)
	}
	open := func() *consoleFile {
		t.Helper()
		f, err := openConsoleFile(path, nil)
		noError(t, err)
		return f
	}
	steps := []struct {
		what    string
		text    string
		started bool
		want    string
	}{
		{"new, not started", "", false, "none"},
		{"new, written before the failure", "a", false, "a"},
		{"old, not started", "", false, "a"},
		{"old, written before the failure", "b", false, "b"},
		{"old, started", "", true, ""},
		{"empty, written", "cc", true, "cc"},
		{"old, written", "d", true, "d"},
	}
	for _, s := range steps {
		f := open()
		if s.text != "" {
			must[int](t)(f.Write([]byte(s.text)))
		}
		f.finish(s.started)
		if got := read(); got != s.want {
			t.Errorf("%s: the file has %q, want %q", s.what, got, s.want)
		}
	}
}

// A VM that comes and is then refused has taken no key from the one after it.
func TestConsoleReadsOnlyWhenItListens(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	stdin := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = stdin }()
	refused, err := consoleSpec{stdio: true}.connect(&lateWriter{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	refused.finish(false)
	c, err := consoleSpec{stdio: true}.connect(&lateWriter{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := listening(1)
	if err := c.listen(g, quiet); err != nil {
		t.Fatal(err)
	}
	defer c.finish(true)
	eventually(t, "the key to arrive", func() bool { got, _ := g.state(); return got == "x" })
}
