package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/wire"
)

// streams are our ends and the command's ends of its standard streams: pipes, and a terminal for those of them that are
// a terminal at the launcher's side.
type streams struct {
	stdin          *os.File // nil: the terminal
	stdout, stderr *os.File // nil: the terminal
	terminal       *os.File // pty master, nil if no stream needs one
	child          [3]*os.File
}

func openStreams(c wire.Command) (*streams, error) {
	s := &streams{}
	var err error
	if c.TTY[0] || c.TTY[1] || c.TTY[2] {
		var slave *os.File
		if s.terminal, slave, err = openTerminal(c.Window); err != nil {
			return nil, err
		}
		for i, tty := range c.TTY {
			if tty {
				s.child[i] = slave
			}
		}
	}
	if !c.TTY[0] {
		if s.child[0], s.stdin, err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	if !c.TTY[1] {
		if s.stdout, s.child[1], err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	if !c.TTY[2] {
		if s.stderr, s.child[2], err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *streams) childFDs() []uintptr {
	return []uintptr{s.child[0].Fd(), s.child[1].Fd(), s.child[2].Fd()}
}

func (s *streams) closeChild() {
	for _, f := range s.child {
		f.Close() // the terminal's end may be there several times
	}
}

// openTerminal makes a pseudo-terminal.
func openTerminal(size wire.WindowSize) (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/pts/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, fmt.Errorf("number of the terminal: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	setWindow(master, size)
	return master, slave, nil
}

func setWindow(terminal *os.File, w wire.WindowSize) {
	unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: w.Rows, Col: w.Cols})
}
