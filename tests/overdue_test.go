package tests

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// overdue ends an ebb that has not ended in time, and says where it stood, with the goroutines, which the Go
// runtime adds to ebb's standard error.
func (e *ebb) overdue() {
	where := lab.Standing(e.cmd.Process.Pid)
	e.mu.Lock()
	e.late = true
	fmt.Fprintf(&e.stderr, "\n--- ebb, process %d, had its time\n%s", e.cmd.Process.Pid, where)
	e.mu.Unlock()
	e.cmd.Process.Signal(unix.SIGABRT)
	time.AfterFunc(10*time.Second, func() { e.cmd.Process.Kill() })
}
