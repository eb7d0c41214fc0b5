package lab

import (
	"bytes"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// process is a child that the kernel kills when this process dies, in whatever way.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	said bytes.Buffer  // its output: complaints, as nothing else is expected; valid after done
}

// startProcess starts cmd in a process group of its own (a terminal's Ctrl-C is not for it). The kernel delivers the
// parent-death signal when the *thread* that forked ends, so that thread waits for the child.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.said, &p.said
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		cmd.Wait() // how it ended does not matter: what it should have done before does
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// complaint is what the process said, if it has ended and said anything of interest, else "".
func (p *process) complaint() string {
	select {
	case <-p.done:
	default:
		return ""
	}
	var lines []string
	for line := range strings.Lines(p.said.String()) {
		// The emulator lacks some features of the processor; a file server's client always goes without a farewell.
		if !strings.Contains(line, " warning: ") && !strings.Contains(line, "Unexpected poll revents") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "; ")
}

// kill ends the process and waits until it is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}
