package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/machine"
)

// consoleSpec is the value of --console.
type consoleSpec struct {
	stdio bool
	file  string // empty: none
}

func parseConsole(s string) (consoleSpec, error) {
	file, isFile := strings.CutPrefix(s, "file:")
	switch {
	case s == "stdio":
		return consoleSpec{stdio: true}, nil
	case s == "none":
		return consoleSpec{}, nil
	case isFile && file != "":
		return consoleSpec{file: file}, nil
	default:
		return consoleSpec{}, usagef("--console %s: write stdio, none or file:FILE", s)
	}
}

// connect opens the console's far end. close restores the terminal and may be
// called more than once, by any goroutine.
func (c consoleSpec) connect(out *lateWriter, m *machine.Machine, log *slog.Logger) (close func(), err error) {
	switch {
	case c.stdio:
		restore, err := rawTerminal(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("--console stdio: %w", err)
		}
		out.Writer = os.Stdout
		go typeInput(os.Stdin, isTerminal(os.Stdin), m, log)
		return restore, nil
	case c.file != "":
		f, err := os.OpenFile(c.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return nil, fmt.Errorf("--console: %w", err)
		}
		out.Writer = f
		return func() { f.Close() }, nil
	default:
		out.Writer = io.Discard
		return func() {}, nil
	}
}

// typeInput passes what is read to the guest's console until the guest is gone.
// From a terminal the escape keys are ebb's own; from a pipe every byte is the
// guest's.
func typeInput(in io.Reader, terminal bool, m *machine.Machine, log *slog.Logger) {
	var keys escapes
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		input, action := buf[:n], keepRunning
		if terminal {
			input, action = keys.feed(buf[:n])
		}
		if len(input) > 0 && m.Input(input) != nil {
			return
		}
		switch action {
		case endGuest:
			m.Stop()
			return
		case showHelp:
			fmt.Fprint(os.Stderr, escapeHelp)
		}
		switch {
		case errors.Is(err, io.EOF):
			endOfInput(m)
			return
		case err != nil:
			log.Warn("the console's input can't be read any more", "err", err)
			return
		}
	}
}

// At the end of its input a console reads as a file does at its end: every read
// finds it. So the guest gets Ctrl-D, and again as often as it may take until a
// program that ends by it is the one that reads.
func endOfInput(m *machine.Machine) {
	const (
		ctrlD  = 4
		period = time.Second
		times  = 60
	)
	for range times {
		if m.Input([]byte{ctrlD}) != nil {
			return
		}
		time.Sleep(period)
	}
}
