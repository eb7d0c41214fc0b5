// Command init is the guest's PID 1. It says what it sees, gives a shell or runs the workloads that the kernel command
// line names, and powers the machine off. Package guest has the command line's syntax, package report what is printed.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/early"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == watcherName {
		fmt.Fprintln(os.Stderr, "init:", watch())
		os.Exit(1)
	}
	say("userspace %s", uptime())
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is a guest's PID 1; it does nothing elsewhere")
		os.Exit(2)
	}
	// The boot benchmark wants nothing but the way here and out again.
	proc := early.Basic[:1]
	if err := early.MountAll(proc); err != nil {
		fail(err)
	}
	run, found := early.Argument("ebb.run")
	if run == "poweroff" {
		early.PowerOff()
	}
	mounts := append(early.Basic[1:],
		early.Mount{Source: "tmpfs", Target: "/tmp", Type: "tmpfs"},
		early.Mount{Source: "devpts", Target: "/dev/pts", Type: "devpts"},
		early.Mount{Source: "tmpfs", Target: "/dev/shm", Type: "tmpfs"})
	if err := early.MountAll(mounts); err != nil {
		fail(err)
	}
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	os.Setenv("HOME", "/root")
	if err := early.LoadModules(); err != nil {
		fail(err)
	}
	if err := printReport(); err != nil {
		fail(err)
	}
	if !found {
		if err := shell(); err != nil {
			fail(err)
		}
		early.PowerOff()
	}
	runAll(run)
	early.PowerOff()
}

// say prints one line for tests. A line is one write, so that kernel messages do not fall into it.
func say(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " | ")
	os.Stdout.WriteString("ebb: " + text + "\n")
}

// fail ends the guest because of something that no workload is to blame for.
func fail(err error) {
	say("init FAILED: %v", err)
	say("done FAILED: init")
	early.PowerOff()
}

// uptime is the time since the kernel started its clocks, in seconds.
func uptime() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return "?"
	}
	return fmt.Sprintf("%d.%03d", ts.Sec, ts.Nsec/1e6)
}
