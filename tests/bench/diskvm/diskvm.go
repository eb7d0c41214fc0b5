// Package diskvm runs the bare-metal disk benchmark (guest/diskbench) in ebb and in
// QEMU, so that both get the same guest, disks and engine.
package diskvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/report"
)

// Machine is what is to be run.
type Machine struct {
	Kernel    string   // from guest.BuildDiskBench
	Cmdline   string   // its options
	Engine    string   // one of Engines
	Images    []string // files or block devices, opened with O_DIRECT
	QueueSize int      // descriptors of each disk's queue; the guest needs 3 a request
}

// Engines are ebb's names; qemuEngine has QEMU's.
var Engines = []string{"uring", "native", "threads"}

var qemuEngine = map[string]string{"uring": "io_uring", "native": "native", "threads": "threads"}

// EBB is the command that runs m in ebb.
func (m Machine) EBB(program string) []string {
	argv := []string{program, "run", "--kernel", m.Kernel, "--append", m.Cmdline, "--aio", m.Engine, "--no-reboot"}
	for _, f := range m.Images {
		argv = append(argv, "--disk", fmt.Sprintf("path=%s,direct,queue-size=%d", f, m.QueueSize))
	}
	return argv
}

// QEMU is the command that runs m in QEMU: a machine with as little else as possible,
// and one I/O thread for all disks as ebb has. Disks go to slots 3 to 30 and then on
// as further functions, which is the order in which the guest counts them.
func (m Machine) QEMU() []string {
	argv := []string{"qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m", "512",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-object", "iothread,id=io", "-kernel", m.Kernel, "-append", m.Cmdline}
	for i, f := range m.Images {
		driver := "file"
		if strings.HasPrefix(f, "/dev/") && !strings.HasPrefix(f, "/dev/shm/") {
			driver = "host_device"
		}
		node := "d" + strconv.Itoa(i)
		argv = append(argv,
			"-blockdev", fmt.Sprintf("driver=raw,node-name=%s,cache.direct=on,file.driver=%s,file.filename=%s,file.aio=%s,file.cache.direct=on",
				node, driver, f, qemuEngine[m.Engine]),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,iothread=io,queue-size=%d,addr=%x.%d,multifunction=on",
				node, m.QueueSize, 3+i%28, i/28))
	}
	return argv
}

// ErrRefused says that ebb doesn't know the engine.
var ErrRefused = errors.New("not measured")

const exitUsage = 2 // ebb's exit code for an option it doesn't take

// Run runs a command of EBB or QEMU until its guest powers off, limit at most.
func Run(ctx context.Context, limit time.Duration, argv []string) (report.DiskBench, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var console, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &log
	err := cmd.Run()
	said := strings.TrimSpace(log.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitUsage && strings.Contains(said, "--aio") {
		return report.DiskBench{}, fmt.Errorf("%w: %s", ErrRefused, said)
	}
	b, parseErr := report.ParseDiskBench(console.String())
	if err := errors.Join(err, context.Cause(ctx), parseErr); err != nil {
		return b, fmt.Errorf("%s: %w\n%s", argv[0], err, said)
	}
	if b.Errors != 0 {
		return b, fmt.Errorf("%s: %d requests failed\n%s", argv[0], b.Errors, said)
	}
	return b, nil
}
