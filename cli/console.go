package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
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

// guest is what a console needs of a machine.
type guest interface {
	// Input waits until the guest has taken p. It fails when there is no guest any more.
	Input(p []byte) error
	// Stop ends the guest and returns at once.
	Stop()
}

// console is the host's end of the guest's console.
type console struct {
	stdio   bool
	restore func()             // gives the terminal back; any goroutine, more than once
	finish  func(started bool) // undoes what was opened; with started false nothing remains of it
}

// connect opens the host's end for the guest's output. others are the files the guest is made of, by
// option: the console must not be one of them.
func (s consoleSpec) connect(out *lateWriter, others []namedFile) (console, error) {
	c := console{stdio: s.stdio, restore: func() {}, finish: func(bool) {}}
	switch {
	case s.stdio:
		out.Writer = os.Stdout
	case s.file != "":
		f, err := openConsoleFile(s.file, others)
		if err != nil {
			return console{}, err
		}
		out.Writer, c.finish = f, f.finish
	default:
		out.Writer = io.Discard
	}
	return c, nil
}

// listen passes on what is typed from now on. That doesn't end before the process does: only for a guest that
// is certain to run.
func (c *console) listen(g guest, log *slog.Logger) error {
	if !c.stdio {
		return nil
	}
	restore, err := rawTerminal(os.Stdin)
	if err != nil {
		return fmt.Errorf("--console stdio: %w", err)
	}
	c.restore, c.finish = restore, func(bool) { restore() }
	go typeInput(os.Stdin, isTerminal(os.Stdin), g, time.Second, log)
	return nil
}

// typedAhead is how much may be typed before the guest listens, in reads of up
// to 4 KiB: from a terminal, most are one key.
const typedAhead = 1024

// typeInput passes what is read to the guest's console until the guest is gone
// or the input ends. From a terminal the escape keys are ebb's own, and work even
// if the guest takes no input; from a pipe every byte is the guest's. eofPeriod
// is endOfInput's.
func typeInput(in io.Reader, terminal bool, g guest, eofPeriod time.Duration, log *slog.Logger) {
	typed, gone, ended := make(chan []byte, typedAhead), make(chan struct{}), false
	go func() {
		defer close(gone)
		for p := range typed {
			if g.Input(p) != nil {
				return
			}
		}
		if ended {
			endOfInput(g, eofPeriod)
		}
	}()
	defer close(typed)
	var keys escapes
	for {
		buf := make([]byte, 4096)
		n, err := in.Read(buf)
		input, action := buf[:n], keepRunning
		if terminal {
			input, action = keys.feed(buf[:n])
		}
		if len(input) > 0 {
			select {
			case typed <- input:
			case <-gone:
				return
			}
		}
		switch action {
		case endGuest:
			g.Stop()
			return
		case showHelp:
			fmt.Fprint(os.Stderr, escapeHelp)
		}
		switch {
		case errors.Is(err, io.EOF):
			ended = true
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
func endOfInput(g guest, period time.Duration) {
	const (
		ctrlD = 4
		times = 60
	)
	for range times {
		if g.Input([]byte{ctrlD}) != nil {
			return
		}
		time.Sleep(period)
	}
}

// lateWriter is a writer whose destination comes later, before the first Write.
type lateWriter struct{ io.Writer }
