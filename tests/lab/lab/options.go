// Package lab runs commands on a KVM host that exists on any machine: QEMU's emulator (TCG) with an AMD processor that
// has SVM and nested paging, a stock Debian kernel with kvm-amd, and the machine's own files under a layer that takes all
// changes. What runs in there sees a hardware-like /dev/kvm, its usual working directory and environment, and can't harm
// the machine.
//
//	options.go   what can be chosen
//	run.go       Run: one lab, one command, one exit code
//	testmain.go  Main: a test package that needs a KVM which boots Linux
//	session.go   the launcher's half of package wire
//	terminal.go  raw mode, window size, signals
//	qemu.go      the outer machine
//	files.go     virtio-fs servers, scratch drive, initramfs
//	cable.go     a network between two labs
//	process.go   children that end with us
//	console.go   the lab kernel's log
//
// The other half is tests/lab/agent, the command tests/lab.
package lab

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options of a lab. The zero value is a good one.
type Options struct {
	Kernel    string        // series of the lab's kernel; "" means guest.DefaultSeries
	CPUs      int           // of the commands; 0 means 2
	MemoryMiB int           // 0 means 4096; taken from the machine as it is touched
	Deadline  time.Duration // for boot and command together; 0 means 10 minutes, below 0 none

	Dir string   // working directory; "" means the caller's
	Env []string // of the command; nil means Environment()

	// Shares are folders of the machine that the lab may write to. Everything else it writes is gone when it ends.
	Shares []string
	// Drives are further disks, /dev/vda, /dev/vdb, ... in this order: what -drive of QEMU takes, without if= and id=.
	// See SlowDrive, LatentDrive and SharedDrive for some.
	Drives []string
	// ScratchGiB is the size of the drive below everything the lab writes, sparse in the machine's temporary folder,
	// so that /tmp and all else there is a real ext4 with O_DIRECT, locks and discards. 0 means 32; below 0 there is
	// none, and a tmpfs in the lab's memory takes its place.
	ScratchGiB int

	// Modules are kernel modules to load besides those the lab needs: "null_blk nr_devices=1", "dm-delay", "veth".
	// modprobe works in the lab as well, if the machine has one.
	Modules []string
	Append  string // added to the lab's kernel command line

	// Cable, if set, is one end of a cable to another lab: the lab's eth0, which has no address yet.
	Cable *CableEnd

	QEMU []string // further arguments of QEMU

	Log            io.Writer // gets the lab's kernel log as it comes; nil: it is only shown when the lab fails
	ForwardSignals bool      // INT, TERM, HUP and QUIT go to the command instead of ending this process
	Started        func(Boot)
}

// Boot says how long it took until the command could start.
type Boot struct {
	Kernel    string        // release of the lab's kernel
	Prepare   time.Duration // building what the lab is made of
	Firmware  time.Duration // from QEMU's start to the kernel's first clock tick
	Userspace time.Duration // from there to the agent
	Ready     time.Duration // from there to the command
}

// InLabVariable is set, to 1, in the environment of everything that runs in a lab.
const InLabVariable = "EBB_IN_LAB"

// InLab tells whether this process runs in a lab.
func InLab() bool { return os.Getenv(InLabVariable) != "" }

// Environment is this process's, without what means nothing in the lab: sockets of the machine's services.
func Environment() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "DISPLAY", "WAYLAND_DISPLAY", "NOTIFY_SOCKET":
			return true
		}
		return false
	})
}

func (o *Options) setDefaults() error {
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 4096
	}
	if o.Deadline == 0 {
		o.Deadline = 10 * time.Minute
	}
	if o.ScratchGiB == 0 {
		o.ScratchGiB = 32
	}
	if o.Env == nil {
		o.Env = Environment()
	}
	o.Env = append(slices.Clone(o.Env), InLabVariable+"=1")
	if o.Dir == "" {
		var err error
		if o.Dir, err = os.Getwd(); err != nil {
			return err
		}
	}
	o.Shares = slices.Clone(o.Shares)
	for i, dir := range o.Shares {
		var err error
		if o.Shares[i], err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	return nil
}
