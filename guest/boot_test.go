package guest_test

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/guest/pattern"
	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// image builds a guest, or skips the test where this machine lacks what that takes.
func image(t *testing.T, s guest.Spec) guest.Image {
	t.Helper()
	if testing.Short() {
		t.Skip("may fetch a kernel and boots it in an emulator")
	}
	img, err := guest.Build(t.Context(), s)
	if _, lacks := errors.AsType[guest.LackError](err); lacks {
		lab.SkipTest(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// emulator is QEMU's, with the guest's console on its standard streams. It is killed after a minute, as a guest may hang,
// and when this process dies.
func emulator(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		lab.SkipTest(t, "qemu-system-x86_64 is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, qemu, "-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio")
	cmd.Args = append(cmd.Args, args...)
	// The kernel sends this signal when the thread ends that started QEMU: the test's, until the test is over.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// boot runs a guest in QEMU's emulator with these disks, and returns its report and its console.
func boot(t *testing.T, img guest.Image, kernel, appended, input string, disks ...string) (report.Report, string) {
	t.Helper()
	cmd := emulator(t, "-smp", "2", "-m", "512", "-kernel", kernel, "-initrd", img.Initrd,
		"-append", "console=ttyS0 quiet panic=-1 "+appended)
	for i, d := range disks {
		cmd.Args = append(cmd.Args, "-drive", fmt.Sprintf("file=%s,format=raw,if=none,id=d%d,cache=unsafe,discard=unmap,detect-zeroes=unmap", d, i),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,serial=%s", i, filepath.Base(d)))
	}
	// What comes before the shell reads may be lost, as on any serial line. It reads when it has asked the terminal
	// where the cursor is.
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	console := typist{prompt: "\x1b[6n", input: input, to: keyboard}
	var complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("QEMU: %v: %s\n%s", err, complaints.String(), console.output.String())
	}
	return report.Parse(console.output.String()), console.output.String()
}

// typist keeps a console's output and types input once, when it sees the prompt.
type typist struct {
	output        bytes.Buffer
	prompt, input string
	to            io.WriteCloser
}

func (p *typist) Write(b []byte) (int, error) {
	n, err := p.output.Write(b)
	if p.prompt != "" && strings.Contains(p.output.String(), p.prompt) {
		p.prompt = ""
		go func() {
			io.WriteString(p.to, p.input)
			p.to.Close()
		}()
	}
	return n, err
}

func diskFiles(t *testing.T, size int64, names ...string) []string {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for _, name := range names {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(f, size); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func TestKernelsAreComplete(t *testing.T) {
	for _, series := range []string{"6.1", "6.12"} {
		img := image(t, guest.Spec{Series: series})
		f, err := elf.Open(img.Kernel.Vmlinux)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if !strings.HasPrefix(img.Kernel.Release, series+".") {
			t.Errorf("kernel %s: release %s", series, img.Kernel.Release)
		}
		order, err := img.Kernel.ModuleOrder("kvm-amd", "dm_flakey")
		if err != nil || len(order) < 4 {
			t.Errorf("kernel %s: modules %v, %v", series, order, err)
		}
	}
}

func TestWorkloadsOnTwoDisks(t *testing.T) {
	img := image(t, guest.Spec{Programs: []string{"mke2fs"}})
	const size = 64 << 20
	disks := diskFiles(t, size, "first", "second")
	run := "ebb.run=reboot:once=vdb,ext4,discard:offset=32m,pattern:size=16m,verify:size=16m,ioerror:disks=vdb:op=read@0+4k:op=flush,idle:count=2:every=1ms"
	r, console := boot(t, img, img.Kernel.BzImage, run, "", disks...)
	if r.Done != nil || len(r.Results) > 0 {
		t.Fatalf("the first boot should end in a reboot:\n%s", console)
	}
	r, console = boot(t, img, img.Kernel.Vmlinux, run, "", disks...)
	if err := r.Err(); err != nil {
		t.Fatalf("%v\n%s", err, console)
	}
	if r.Kernel != img.Kernel.Release || r.CPUs != 2 || r.Memory < 400<<20 || r.Userspace <= 0 {
		t.Errorf("report: %+v", r)
	}
	want := []report.Disk{
		{Name: "vda", Serial: "first", Size: size, Block: 512, Queues: 2},
		{Name: "vdb", Serial: "second", Size: size, Block: 512, Queues: 2},
	}
	if fmt.Sprint(r.Disks) != fmt.Sprint(want) {
		t.Errorf("disks %v, want %v", r.Disks, want)
	}
	if got := fmt.Sprint(r.Notes["ioerror"]); got != "[vdb read@0+4k ok vdb flush ok]" {
		t.Errorf("ioerror said %s", got)
	}
	for _, file := range disks {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := pattern.CheckReader(f, filepath.Base(file), 0, 16<<20); err != nil {
			t.Error(err)
		}
	}
}

func TestFailureIsReported(t *testing.T) {
	img := image(t, guest.Spec{Series: "6.12"})
	r, console := boot(t, img, img.Kernel.BzImage, "ebb.run=report,verify,idle", "", diskFiles(t, 1<<20, "empty")...)
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), `verify failed in the guest: vda: disk "empty" sector 0: is all zeroes`) {
		t.Errorf("%v\n%s", err, console)
	}
	if len(r.Results) != 2 || r.Done == nil || r.Done.OK {
		t.Errorf("it should have stopped at the failure: %+v", r)
	}
}

func TestShellEndsWithItsInput(t *testing.T) {
	img := image(t, guest.Spec{})
	// A serial line has no end of input: Ctrl-D says it.
	r, console := boot(t, img, img.Kernel.Vmlinux, "", "echo 6 x 7 = $((6*7)); tty\n\x04", diskFiles(t, 1<<20, "disk")...)
	if !strings.Contains(console, "6 x 7 = 42") || !strings.Contains(console, "/dev/ttyS0") || len(r.Disks) != 1 {
		t.Errorf("console:\n%s", console)
	}
}
