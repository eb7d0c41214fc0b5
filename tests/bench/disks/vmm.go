package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/report"
)

// qemuEngine is what QEMU calls the engines.
var qemuEngine = map[string]string{"uring": "io_uring", "native": "native", "threads": "threads"}

// exitUsage is ebb's exit code for an option it doesn't know.
const exitUsage = 2

func candidates(o options, kernel string) (all []*candidate) {
	add := func(name string, argv func(s setup, images []string) []string) {
		all = append(all, &candidate{name: name, run: func(ctx context.Context, s setup, images []string) (result, error) {
			return boot(ctx, argv(s, images), o.seconds)
		}})
	}
	for _, engine := range o.engines {
		add("ebb "+engine, func(s setup, images []string) []string {
			argv := []string{o.ebb, "run", "--kernel", kernel, "--append", cmdline(s, o.seconds), "--aio", engine, "--no-reboot"}
			for _, f := range images {
				argv = append(argv, "--disk", "path="+f+",direct")
			}
			return argv
		})
		add("QEMU "+engine, func(s setup, images []string) []string { return qemu(kernel, s, o.seconds, engine, images) })
	}
	return append(all, &candidate{name: bareName, run: func(_ context.Context, s setup, images []string) (result, error) {
		return bare(s, images, time.Duration(o.seconds)*time.Second)
	}})
}

func cmdline(s setup, seconds int) string {
	return fmt.Sprintf("depth=%d size=%d mode=read seconds=%d", s.Depth, requestSize, seconds)
}

// qemu is a machine with as little else as possible, and one I/O thread for all
// disks as ebb has. Disks go to slots 3 to 30 and then on as further functions,
// which is the order in which the guest counts them.
func qemu(kernel string, s setup, seconds int, engine string, images []string) []string {
	argv := []string{"qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m", "512",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-object", "iothread,id=io", "-kernel", kernel, "-append", cmdline(s, seconds)}
	for i, f := range images {
		argv = append(argv,
			"-blockdev", fmt.Sprintf("driver=raw,node-name=d%d,file.driver=file,file.filename=%s,file.aio=%s,cache.direct=on,file.cache.direct=on",
				i, f, qemuEngine[engine]),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,iothread=io,addr=%x.%d,multifunction=on", i, 3+i%28, i/28))
	}
	return argv
}

// boot runs a VMM until its guest powers off.
func boot(ctx context.Context, argv []string, seconds int) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var console, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &log
	err := cmd.Run()
	said := strings.TrimSpace(log.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitUsage && strings.Contains(said, "--aio") {
		return result{}, fmt.Errorf("%w: %s", errRefused, said)
	}
	b, parseErr := report.ParseDiskBench(console.String())
	if err := errors.Join(err, parseErr); err != nil {
		return result{}, fmt.Errorf("%s: %w\n%s", argv[0], err, said)
	}
	us := func(d time.Duration) float64 { return float64(d) / 1e3 }
	return result{IOPS: b.IOPS, P50: us(b.P50), P99: us(b.P99), P999: us(b.P999), Fairness: b.Fairness(), Kicks: b.Kicks, Errors: b.Errors}, nil
}
