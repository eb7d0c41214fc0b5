package cli

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// rawTerminal makes keys reach the guest one by one and unchanged: no echo, no
// line editing, no signals. Output keeps being processed, so that log lines
// start at the left. The returned function restores the terminal; it may be
// called more than once. What is no terminal is left alone.
func rawTerminal(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}, nil
	}
	// A background process that touches its terminal is stopped: say so instead.
	if inBackground(fd) {
		return nil, errors.New("ebb runs in the background of its terminal; use --console none or --console file:FILE")
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("the terminal can't be set to raw mode (%w); use --console none or --console file:FILE", err)
	}
	var (
		mu       sync.Mutex
		restored bool
	)
	set := func(request uint, mode *unix.Termios) {
		if !inBackground(fd) { // where the shell has taken the terminal back already
			_ = unix.IoctlSetTermios(fd, request, mode)
		}
	}
	// A shell sets its own modes while ebb is stopped.
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, unix.SIGCONT)
	go func() {
		for range continued {
			mu.Lock()
			if !restored {
				set(unix.TCSETS, &raw)
			}
			mu.Unlock()
		}
	}()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if !restored {
			restored = true
			signal.Stop(continued)
			set(unix.TCSETSW, old)
		}
	}, nil
}

// inBackground reports whether fd is this process's controlling terminal and
// another process group has it now.
func inBackground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group != unix.Getpgrp()
}
