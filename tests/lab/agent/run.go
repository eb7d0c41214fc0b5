package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/wire"
)

// run runs the command and returns its exit code when it has ended, everything it left behind is killed, and all its
// output is on its way.
func run(c wire.Command, control, stdin *os.File) (int, error) {
	out := &output{w: control}
	for _, kv := range c.Env {
		if len(kv) > 5 && kv[:5] == "PATH=" {
			os.Setenv("PATH", kv[5:])
		}
	}
	if err := os.Chdir(c.Dir); err != nil {
		return 0, fmt.Errorf("the lab does not see the working directory: %w", err)
	}
	program, err := exec.LookPath(c.Args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return 127, out.send(wire.Stderr, fmt.Appendf(nil, "lab: %s: command not found\n", c.Args[0]))
	}
	streams, err := openStreams(c)
	if err != nil {
		return 0, err
	}
	runtime.LockOSThread() // the child inherits this thread's processors
	defer runtime.UnlockOSThread()
	if err := leaveFirstCPU(); err != nil {
		return 0, err
	}
	attr := &syscall.SysProcAttr{Setsid: true, Setctty: c.TTY[0]} // the terminal is file 0
	pid, err := syscall.ForkExec(program, c.Args, &syscall.ProcAttr{
		Dir: c.Dir, Env: c.Env, Files: streams.childFDs(), Sys: attr,
	})
	streams.closeChild()
	if err != nil {
		return 126, out.send(wire.Stderr, fmt.Appendf(nil, "lab: %s: %v\n", program, err))
	}
	go feed(stdin, streams)
	go steer(control, pid, streams.terminal)

	var pumps sync.WaitGroup
	if streams.terminal != nil {
		pumps.Go(func() { out.pump(wire.Stdout, streams.terminal) })
	}
	if streams.stdout != nil {
		pumps.Go(func() { out.pump(wire.Stdout, streams.stdout) })
	}
	if streams.stderr != nil {
		pumps.Go(func() { out.pump(wire.Stderr, streams.stderr) })
	}
	code, err := reap(pid)
	if err != nil {
		return 0, err
	}
	pumps.Wait()
	return code, out.err
}

// reap waits for the command, and for whatever else becomes a child of PID 1, and then ends all other processes, which
// closes the streams they may still hold.
func reap(pid int) (int, error) {
	code := -1
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ECHILD && code >= 0:
			return code, nil
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		}
		if got == pid {
			code = status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
			unix.Kill(-1, unix.SIGKILL)
		}
	}
}

// feed passes standard input on. When the command does not want it any more, the rest is dropped.
func feed(port *os.File, s *streams) {
	w := s.stdin
	if w == nil {
		w = s.terminal
	}
	for {
		t, data, err := wire.Read(port)
		if err != nil || t != wire.Data {
			return
		}
		switch {
		case len(data) > 0:
			w.Write(data)
		case s.stdin != nil:
			w.Close()
		default:
			w.Write([]byte{4}) // a terminal's end of input: Ctrl-D
		}
	}
}

// steer passes signals and window sizes on.
func steer(control *os.File, pid int, terminal *os.File) {
	for {
		t, data, err := wire.Read(control)
		if err != nil {
			return
		}
		switch {
		case t == wire.Signal && len(data) == 1:
			unix.Kill(-pid, unix.Signal(data[0])) // its session's process group
		case t == wire.Window && terminal != nil:
			var w wire.WindowSize
			if json.Unmarshal(data, &w) == nil {
				setWindow(terminal, w)
			}
		}
	}
}

// output sends the command's output, from several goroutines, frame by frame.
type output struct {
	mu  sync.Mutex
	w   io.Writer
	err error // the first one
}

func (o *output) send(t wire.Type, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := wire.Write(o.w, t, data); err != nil && o.err == nil {
		o.err = fmt.Errorf("send output: %w", err)
	}
	return o.err
}

// pump sends r until its end, which for a terminal is an error.
func (o *output) pump(t wire.Type, r io.Reader) {
	buf := make([]byte, 32<<10-5) // one virtio-serial buffer with the frame's header
	for {
		n, err := r.Read(buf)
		if n > 0 {
			o.send(t, buf[:n])
		}
		if err != nil {
			return
		}
	}
}
