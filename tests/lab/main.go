// Command lab runs a command on a hardware-like KVM host, made of QEMU's emulator, on any machine:
//
//	go run ./tests/lab [options] -- CMD [ARG...]
//
// The command sees the machine's files, its working directory and environment, and a /dev/kvm that boots Linux guests.
// What it writes is gone afterwards, except below folders given with -share. Standard streams and signals are passed
// through, with a terminal if stdin is one. The exit code is the command's, 127 if there is no such command, and 125
// if the lab itself failed: it did not start, broke down, or took longer than its -deadline.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

const exitLabFailed = 125

func main() {
	// When "go run" is killed, nobody would tell us.
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", os.Getppid())); err == nil && strings.TrimSpace(string(comm)) == "go" {
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	}
	o := lab.Options{ForwardSignals: true}
	var boot, verbose bool
	flag.StringVar(&o.Kernel, "kernel", "", "kernel series of the lab (default 6.1)")
	flag.IntVar(&o.CPUs, "cpus", 2, "processors of the lab")
	flag.IntVar(&o.MemoryMiB, "memory", 4096, "memory of the lab in MiB, taken as it is used")
	flag.DurationVar(&o.Deadline, "deadline", 0, "give up after this time, below 0 never (default 10m, never on a terminal)")
	flag.IntVar(&o.ScratchGiB, "scratch", 32, "GiB that the lab can write, -1: a tmpfs in its memory")
	flag.StringVar(&o.Append, "append", "", "further words for the lab's kernel command line")
	flag.BoolVar(&boot, "boot", false, "say how long the lab took to boot")
	flag.BoolVar(&verbose, "v", false, "show the lab's kernel log")
	list := func(name string, to *[]string, usage string) {
		flag.Func(name, usage+" (may be repeated)", func(s string) error { *to = append(*to, s); return nil })
	}
	list("share", &o.Shares, "folder that the lab may write to")
	list("drive", &o.Drives, "further disk, as for QEMU's -drive without if= and id=: file=F,format=raw,throttling.iops-total=200")
	list("module", &o.Modules, "further kernel module with parameters: \"null_blk nr_devices=1\"")
	list("qemu", &o.QEMU, "further argument of the lab's QEMU")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: go run ./tests/lab [options] -- CMD [ARG...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if verbose {
		o.Log = os.Stderr
	}
	if o.Deadline == 0 && term.IsTerminal(0) {
		o.Deadline = -1
	}
	if boot {
		o.Started = func(b lab.Boot) {
			ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
			fmt.Fprintf(os.Stderr, "lab: kernel %s; prepared in %v, firmware %v, kernel %v, agent %v\n",
				b.Kernel, ms(b.Prepare), ms(b.Firmware), ms(b.Userspace), ms(b.Ready))
		}
	}
	code, err := lab.Run(context.Background(), o, flag.Args(), os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = exitLabFailed
	}
	os.Exit(code)
}
