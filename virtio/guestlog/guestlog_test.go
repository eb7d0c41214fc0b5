package guestlog

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *buffer) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Split(strings.TrimSuffix(s.b.String(), "\n"), "\n")
}

// A flood makes a burst of lines, then one per interval that says what was lost.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out buffer
		l := New(slog.New(slog.NewTextHandler(&out, nil)))
		for range 1000 {
			l.Log(slog.LevelWarn, "guest", slog.Int("n", 1))
			synctest.Wait()
		}
		if n := len(out.lines()); n != burst {
			t.Fatalf("%d lines, want %d", n, burst)
		}
		time.Sleep(interval)
		for range 10 {
			l.Log(slog.LevelWarn, "guest")
			synctest.Wait()
		}
		lines := out.lines()
		if n := len(lines); n != burst+1 || !strings.Contains(lines[n-1], "dropped=995") {
			t.Errorf("%d lines, the last one %q", n, lines[n-1])
		}
		time.Sleep(100 * interval) // tokens don't pile up
		for range 1000 {
			l.Log(slog.LevelWarn, "guest")
			synctest.Wait()
		}
		if n := len(out.lines()); n != 2*burst+1 {
			t.Errorf("%d lines after a long silence", n)
		}
	})
}

type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.release; return len(p), nil }

// A log that nobody reads doesn't stop the caller.
func TestStuckLog(t *testing.T) {
	s := stuck{make(chan struct{})}
	l := New(slog.New(slog.NewTextHandler(s, nil)))
	for range 100 {
		l.Log(slog.LevelWarn, "guest")
	}
	close(s.release)
	for l.writing.Load() {
		time.Sleep(time.Millisecond)
	}
}

func TestSilent(t *testing.T) {
	New(nil).Log(slog.LevelError, "x")
	(*Logger)(nil).Log(slog.LevelError, "x")
	new(Logger).Log(slog.LevelError, "x")
}
