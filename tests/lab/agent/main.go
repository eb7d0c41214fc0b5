// Command agent is PID 1 of the lab: it makes a KVM host out of a bare kernel, with the machine's own files under a
// writable layer, runs one command there, and reports its end. See package wire for how it talks to the launcher.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/early"
	"github.com/ebb-vmm/ebb/tests/lab/wire"
)

func main() {
	userspace := uptime()
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "agent: this is the lab's PID 1; it does nothing elsewhere")
		os.Exit(2)
	}
	// Until the ports are there, the kernel log is the only place to complain.
	if err := early.MountAll(early.Basic); err != nil {
		die(err)
	}
	if err := awaitTSC(); err != nil {
		die(err)
	}
	if err := early.LoadModules(); err != nil {
		die(err)
	}
	control, err := openPort(wire.ControlPort)
	if err != nil {
		die(err)
	}
	code, err := serve(control, userspace)
	if err != nil {
		wire.Write(control, wire.Failed, []byte(err.Error()))
		die(err)
	}
	if err := wire.Write(control, wire.Exit, wire.ExitStatus{Code: code}); err != nil {
		die(err)
	}
	early.PowerOff()
}

// serve prepares the host, runs the command and returns its exit code.
func serve(control *os.File, userspace float64) (int, error) {
	t, payload, err := wire.Read(control)
	if err != nil {
		return 0, fmt.Errorf("read the command: %w", err)
	}
	var c wire.Command
	if t != wire.Start {
		return 0, fmt.Errorf("frame %d instead of the command", t)
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return 0, fmt.Errorf("read the command: %w", err)
	}
	stdin, err := openPort(wire.StdinPort) // while /sys and /dev are where they are
	if err != nil {
		return 0, err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 0, err
	}
	release := unix.ByteSliceToString(u.Release[:])
	if err := enterRoot(c, release); err != nil {
		return 0, err
	}
	if err := setUpHost(); err != nil {
		return 0, err
	}
	if err := holdKVM(); err != nil {
		return 0, fmt.Errorf("holding KVM: %w", err)
	}
	nudgeCPUs()
	hello := wire.Hello{Kernel: release, Userspace: userspace, Ready: uptime()}
	if err := wire.Write(control, wire.Ready, hello); err != nil {
		return 0, err
	}
	code, err := run(c, control, stdin)
	if err != nil {
		return 0, err
	}
	return code, flush(c)
}

// die ends the lab without a "done". The launcher shows the kernel log then, which the reason is in.
func die(err error) {
	fmt.Fprintln(os.Stderr, "lab agent:", err)
	early.PowerOff()
}

// uptime is the time since the kernel started its clocks, in seconds.
func uptime() float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return float64(ts.Nano()) / 1e9
}
