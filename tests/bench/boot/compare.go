package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// vmm is one of the two under test.
type vmm struct {
	name   string
	argv   func(workload string) []string
	boots  []time.Duration
	memory []int64 // bytes, beside the guest's
}

const cmdline = "console=ttyS0 quiet panic=-1"

// candidates are ebb and, if there is no other ebb to compare it with, QEMU.
func candidates(ebb, against string, img guest.Image, images []string) []*vmm {
	ebbArgv := func(program, workload string) []string {
		argv := []string{program, "run", "--kernel", img.Kernel.Vmlinux, "--initrd", img.Initrd,
			"--memory", fmt.Sprintf("%dM", memoryMiB), "--append", cmdline + workload}
		for _, f := range images {
			argv = append(argv, "--disk", "path="+f+",direct")
		}
		return argv
	}
	qemuArgv := func(workload string) []string {
		argv := []string{"qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host", "-m", strconv.Itoa(memoryMiB),
			"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
			"-kernel", img.Kernel.Vmlinux, "-initrd", img.Initrd, "-append", cmdline + workload}
		for _, f := range images {
			argv = append(argv, "-drive", "if=virtio,format=raw,cache=none,aio=io_uring,file="+f)
		}
		return argv
	}
	other := &vmm{name: "QEMU", argv: qemuArgv}
	if against != "" {
		other = &vmm{name: against, argv: func(workload string) []string { return ebbArgv(against, workload) }}
	}
	return []*vmm{{name: "ebb", argv: func(workload string) []string { return ebbArgv(ebb, workload) }}, other}
}

// compare boots both in turn and prints the figures.
func compare(vmms []*vmm, rounds int) error {
	if err := boots(vmms, rounds); err != nil {
		return err
	}
	for _, v := range vmms {
		for range 3 {
			n, err := v.ownMemory()
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			v.memory = append(v.memory, n)
		}
	}
	for _, v := range vmms {
		fmt.Printf("memory beside the guest's, %-5s %.1f MB resident at the guest's prompt (largest of %d)\n", v.name+":", float64(largest(v.memory))/1e6, len(v.memory))
	}
	return nil
}

// boots boots both in turn and prints the times.
func boots(vmms []*vmm, rounds int) error {
	for i := range rounds + 1 {
		for _, v := range vmms {
			d, err := v.boot()
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			if i > 0 { // the first one warms the page cache
				v.boots = append(v.boots, d)
			}
		}
	}
	fmt.Println()
	for _, v := range vmms {
		fmt.Printf("exec to user space, %-5s %s\n", v.name+":", summary(v.boots))
	}
	fmt.Printf("exec to user space, %s / %s: %.3f (ratio of medians)\n", vmms[0].name, vmms[1].name, times(vmms[0].boots).Median/times(vmms[1].boots).Median)
	// On a busy machine neighbours have more in common than the two medians.
	var ratios []float64
	for i := range rounds {
		ratios = append(ratios, float64(vmms[0].boots[i])/float64(vmms[1].boots[i]))
	}
	s := stat.Of(ratios)
	fmt.Printf("the same, boot by boot: %.3f (median of %d ratios, %.3f to %.3f)\n", s.Median, s.N, s.Low, s.High)
	return nil
}

func largest(n []int64) (m int64) {
	for _, v := range n {
		m = max(m, v)
	}
	return m
}

// start runs the command with its console in lines.
func (v *vmm) start(workload string) (cmd *exec.Cmd, console *bufio.Scanner, stdin io.Closer, err error) {
	argv := v.argv(workload)
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	return cmd, bufio.NewScanner(out), in, nil
}

const bootDeadline = 2 * time.Minute

// boot returns the time from exec to the first line from user space.
func (v *vmm) boot() (time.Duration, error) {
	cmd, console, stdin, err := v.start(" ebb.run=poweroff")
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	kill := time.AfterFunc(bootDeadline, func() { cmd.Process.Kill() })
	defer kill.Stop()
	var took time.Duration
	for console.Scan() {
		if took == 0 && strings.HasPrefix(console.Text(), report.Prefix+"userspace") {
			took = time.Since(started)
		}
	}
	if err := cmd.Wait(); err != nil {
		return 0, err
	}
	if took == 0 {
		return 0, fmt.Errorf("the guest did not reach user space")
	}
	return took, nil
}

// ownMemory boots to the shell and returns what is resident of everything but the
// guest's RAM, which is the one mapping of its size.
func (v *vmm) ownMemory() (int64, error) {
	cmd, console, stdin, err := v.start("")
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	kill := time.AfterFunc(bootDeadline, func() { cmd.Process.Kill() })
	defer kill.Stop()
	for console.Scan() {
		if strings.HasPrefix(console.Text(), "Enter 'help'") { // busybox's greeting
			return residentBeside(cmd.Process.Pid, memoryMiB<<10)
		}
	}
	return 0, fmt.Errorf("the guest gave no shell")
}

// residentBeside adds up the resident size of every mapping of a process, but for
// the one of guestKiB.
func residentBeside(pid int, guestKiB int64) (total int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var size int64
	found := false
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "Size:":
			size = n
		case "Rss:":
			if size == guestKiB {
				found = true
			} else {
				total += n << 10
			}
		}
	}
	if !found {
		return 0, fmt.Errorf("no mapping of the guest's %d MiB was found", guestKiB>>10)
	}
	return total, nil
}
