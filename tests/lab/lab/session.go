package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ebb-vmm/ebb/tests/lab/wire"
)

// streams are the command's, at our side.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// session is the conversation with one lab's agent.
type session struct {
	m       *machine
	o       Options
	argv    []string
	std     streams
	restore func()        // gives the terminal back
	up      chan struct{} // holds an element when the agent is ready

	prepared time.Duration
	launched time.Time

	mu    sync.Mutex // guards writes to the control port, and:
	stage string     // what the lab is doing
	since time.Time
}

func newSession(m *machine, o Options, argv []string, std streams) *session {
	if std.out == nil {
		std.out = io.Discard
	}
	if std.err == nil {
		std.err = io.Discard
	}
	s := &session{m: m, o: o, argv: argv, std: std, restore: func() {}, up: make(chan struct{}, 1)}
	s.enter("the lab booted")
	return s
}

func (s *session) close() { s.restore() }

// outcome is how a session ended.
type outcome struct {
	code int
	err  error
}

// run talks to the agent until the command has ended.
func (s *session) run(ctx context.Context) (int, error) {
	command, err := s.command()
	if err != nil {
		return -1, err
	}
	if err := s.send(wire.Start, command); err != nil {
		return -1, s.lost(err)
	}
	stop := s.forwardSignals(command)
	defer stop()
	ended := make(chan outcome, 1)
	go func() {
		code, err := s.receive()
		ended <- outcome{code, err}
	}()
	up, limit := s.up, time.NewTimer(bootLimit)
	defer limit.Stop()
	for {
		select {
		case <-up:
			up = nil
			limit.Stop()
			go s.sendInput()
		case e := <-ended:
			return e.code, e.err
		case <-limit.C:
			return -1, fmt.Errorf("%w within %v", errNeverReady, bootLimit)
		case <-ctx.Done():
			return -1, fmt.Errorf("%w while %s", context.Cause(ctx), s.at())
		}
	}
}

// command is what the agent is to run.
func (s *session) command() (wire.Command, error) {
	shares, err := resolved(s.o.Shares)
	if err != nil {
		return wire.Command{}, err
	}
	c := wire.Command{Args: s.argv, Env: s.o.Env, Dir: s.o.Dir, Shares: shares, Modules: s.m.modules}
	return c, s.setUpTerminal(&c)
}

// receive handles the agent's frames up to the last one.
func (s *session) receive() (int, error) {
	for {
		t, payload, err := wire.Read(s.m.control)
		if err != nil {
			return -1, s.lost(err)
		}
		switch t {
		case wire.Ready:
			var h wire.Hello
			if err := json.Unmarshal(payload, &h); err != nil {
				return -1, err
			}
			s.ready(h)
		case wire.Stdout:
			_, err = s.std.out.Write(payload)
		case wire.Stderr:
			_, err = s.std.err.Write(payload)
		case wire.Exit:
			var e wire.ExitStatus
			if err := json.Unmarshal(payload, &e); err != nil {
				return -1, err
			}
			return e.Code, nil
		case wire.Failed:
			return -1, fmt.Errorf("the agent failed while %s: %s", s.at(), payload)
		}
		if err != nil {
			return -1, fmt.Errorf("pass the command's output on: %w", err)
		}
	}
}

// ready notes that the command starts now.
func (s *session) ready(h wire.Hello) {
	s.enter("the command ran")
	s.up <- struct{}{}
	if s.o.Started == nil {
		return
	}
	seconds := func(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }
	ready := seconds(h.Ready)
	s.o.Started(Boot{
		Kernel:    h.Kernel,
		Prepare:   s.prepared,
		Firmware:  max(0, time.Since(s.launched)-ready),
		Userspace: seconds(h.Userspace),
		Ready:     ready - seconds(h.Userspace),
	})
}

// lost explains why the agent's port is gone: without a word, the command has failed, even if QEMU ended well.
func (s *session) lost(err error) error {
	s.m.qemu.kill()
	why := "without reporting the command's end"
	if text := s.m.complaints(); text != "" {
		why = text
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		why = err.Error()
	}
	return fmt.Errorf("the lab went away while %s: %s", s.at(), why)
}

// sendInput passes standard input on, and its end.
func (s *session) sendInput() {
	buf := make([]byte, 32<<10-5)
	for s.std.in != nil {
		n, err := s.std.in.Read(buf)
		if n > 0 {
			if wire.Write(s.m.stdin, wire.Data, buf[:n]) != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	wire.Write(s.m.stdin, wire.Data, []byte{})
}

// send writes a frame to the control port.
func (s *session) send(t wire.Type, v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.Write(s.m.control, t, v)
}

func (s *session) enter(stage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage, s.since = stage, time.Now()
}

// at says what the lab is doing, and for how long.
func (s *session) at() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%s (for %v)", s.stage, time.Since(s.since).Round(time.Millisecond))
}
