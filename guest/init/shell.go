package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// shell runs an interactive shell on the console until it ends, with job control and Ctrl-C: it leads a session whose
// terminal is the device behind /dev/console, which itself can't be a controlling terminal.
func shell() error {
	active, err := readAttr("/sys/class/tty/console/active")
	if err != nil {
		return err
	}
	names := strings.Fields(active) // the last one is /dev/console
	if len(names) == 0 {
		return errors.New("no console: give the kernel console=ttyS0")
	}
	tty, err := os.OpenFile("/dev/"+names[len(names)-1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	// The commands of busybox, as links to it.
	if err := exec.Command("/bin/busybox", "--install", "-s", "/bin").Run(); err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", "-i")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env = append(os.Environ(), "TERM=vt102", "PS1=ebb:\\w# ")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	err = cmd.Run()
	var status *exec.ExitError
	if errors.As(err, &status) {
		return nil // how the last command in it ended is the user's business
	}
	return err
}
