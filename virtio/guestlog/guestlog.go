// Package guestlog logs what a guest can provoke. Such lines are a weapon: a
// guest could fill the host's disk with them, or stop the thread that writes them
// by filling the pipe behind stderr. So there are few of them, and the caller
// never waits for them.
package guestlog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	burst    = 5               // lines at once
	interval = 2 * time.Second // then one line in this time
)

// Logger passes on at most burst lines, then one per interval; what it drops is
// counted and said with the next line. The zero value drops everything. Safe for
// any goroutine.
type Logger struct {
	log *slog.Logger

	mu      sync.Mutex
	tokens  int
	filled  time.Time // when tokens was last topped up
	dropped int

	writing atomic.Bool // a line is being written: further ones are dropped, not queued
}

// New returns a Logger that writes to log; nil is silent.
func New(log *slog.Logger) *Logger {
	return &Logger{log: log, tokens: burst, filled: time.Now()}
}

// Log writes a line if there is room for it. The line is written by a goroutine of
// its own, one at a time, so that a stalled log never stalls the caller.
func (l *Logger) Log(level slog.Level, msg string, attrs ...slog.Attr) {
	if l == nil || l.log == nil || !l.log.Enabled(context.Background(), level) {
		return
	}
	dropped, ok := l.admit()
	if !ok {
		return
	}
	if dropped > 0 {
		attrs = append(attrs, slog.Int("dropped", dropped))
	}
	go func() {
		defer l.writing.Store(false)
		l.log.LogAttrs(context.Background(), level, msg, attrs...)
	}()
}

// admit takes a token and the right to write. dropped is how many lines were lost
// since the last one.
func (l *Logger) admit() (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if n := int(now.Sub(l.filled) / interval); n > 0 {
		l.tokens = min(burst, l.tokens+n)
		l.filled = l.filled.Add(time.Duration(n) * interval)
	}
	if l.tokens == 0 || !l.writing.CompareAndSwap(false, true) {
		l.dropped++
		return 0, false
	}
	l.tokens--
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}
