package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// topView shows ebb top's lines.
type topView interface {
	draw(lines []string) error
	close() // gives back what was taken
}

// newTopView returns the view for standard output. On a terminal q and Ctrl-C call stop.
func newTopView(stop func()) (topView, error) {
	if !isTerminal(os.Stdout) {
		return &topLog{w: os.Stdout}, nil
	}
	restore := func() {}
	if isTerminal(os.Stdin) && !inBackground(int(os.Stdin.Fd())) {
		var err error
		if restore, err = rawTerminal(os.Stdin); err != nil {
			return nil, err
		}
		go readKeys(os.Stdin, stop)
	}
	s := &topScreen{f: os.Stdout, restore: restore}
	// The alternate screen, without cursor: what was shown before comes back.
	if _, err := io.WriteString(s.f, "\x1b[?1049h\x1b[?25l"); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// readKeys calls stop at the key that ends.
func readKeys(in io.Reader, stop func()) {
	const ctrlC = "\x03"
	var key [16]byte
	for {
		n, err := in.Read(key[:])
		if strings.ContainsAny(string(key[:n]), "qQ"+ctrlC) {
			stop()
			return
		}
		if err != nil {
			return
		}
	}
}

// topLog writes line after line.
type topLog struct {
	w       io.Writer
	started bool
}

func (l *topLog) draw(lines []string) error {
	if !l.started {
		l.started = true
		lines = append([]string{topHeader}, lines...)
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := io.WriteString(l.w, strings.Join(lines, "\n")+"\n")
	return err
}

func (*topLog) close() {}

// topScreen fills a terminal.
type topScreen struct {
	f       *os.File
	restore func()
}

func (s *topScreen) draw(lines []string) error {
	lines = append([]string{topHeader}, lines...)
	if size, err := unix.IoctlGetWinsize(int(s.f.Fd()), unix.TIOCGWINSZ); err == nil && size.Row > 0 && size.Col > 0 {
		lines = lines[:min(len(lines), int(size.Row))]
		for i, l := range lines {
			lines[i] = l[:min(len(l), int(size.Col))]
		}
	}
	// Home; each line over the last one's; nothing behind them.
	_, err := fmt.Fprintf(s.f, "\x1b[H%s\x1b[K\x1b[J", strings.Join(lines, "\x1b[K\r\n"))
	return err
}

func (s *topScreen) close() {
	_, _ = io.WriteString(s.f, "\x1b[?25h\x1b[?1049l")
	s.restore()
}
