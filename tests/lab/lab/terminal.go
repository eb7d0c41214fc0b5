package lab

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/ebb-vmm/ebb/tests/lab/wire"
)

// setUpTerminal gives the command a terminal if stdin is one, and puts ours into raw mode: every key goes to the lab.
func (s *session) setUpTerminal(c *wire.Command) error {
	in := terminalFD(s.std.in)
	if in < 0 {
		return nil
	}
	c.TTY = [3]bool{true, terminalFD(s.std.out) >= 0, terminalFD(s.std.err) >= 0}
	c.Window = windowSize(in)
	old, err := term.MakeRaw(in)
	if err != nil {
		return fmt.Errorf("set the terminal up: %w", err)
	}
	s.restore = func() { term.Restore(in, old) }
	return nil
}

// forwardSignals passes the terminal's size changes on, and, if wanted, signals. The returned function ends that.
func (s *session) forwardSignals(c wire.Command) func() {
	signals := make(chan os.Signal, 8)
	if s.o.ForwardSignals {
		signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	}
	if c.TTY[0] {
		signal.Notify(signals, unix.SIGWINCH)
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig == unix.SIGWINCH {
					s.send(wire.Window, windowSize(terminalFD(s.std.in)))
				} else {
					s.send(wire.Signal, []byte{byte(sig.(unix.Signal))})
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// terminalFD is the descriptor of a stream that is a terminal, or -1.
func terminalFD(stream any) int {
	if f, ok := stream.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return int(f.Fd())
	}
	return -1
}

func windowSize(fd int) wire.WindowSize {
	cols, rows, err := term.GetSize(fd)
	if err != nil {
		return wire.WindowSize{}
	}
	return wire.WindowSize{Rows: uint16(rows), Cols: uint16(cols)}
}
