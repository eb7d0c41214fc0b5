package diskbench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli"
	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

const (
	// asEbb makes this test binary be ebb.
	asEbb = "EBB_TEST_AS_EBB"

	// kernelVar carries the guest's kernel into the lab, where nothing can be built.
	kernelVar = "EBB_TEST_DISKBENCH"

	guestDeadline = time.Minute // a guest that hangs

	exitPanicked = 4
)

func TestMain(m *testing.M) {
	if os.Getenv(asEbb) != "" {
		os.Exit(cli.Main(os.Args))
	}
	if err := buildKernel(); err != nil {
		lab.Skip("no guest to test with: " + err.Error())
	}
	lab.Main(m, lab.HasKVM, lab.Options{})
}

// buildKernel builds the guest, outside the lab.
func buildKernel() error {
	if os.Getenv(kernelVar) != "" {
		return nil
	}
	dir, err := guest.BuildDir()
	if err != nil {
		return err
	}
	path, err := guest.BuildDiskBench(context.Background(), dir)
	if err != nil {
		return err
	}
	return os.Setenv(kernelVar, path)
}

func makeDisks(t *testing.T, n int, size int64) (paths []string) {
	t.Helper()
	for i := range n {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("disk%d.img", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// command is ebb with the guest.
func command(t *testing.T, cmdline string, disks ...string) *exec.Cmd {
	t.Helper()
	return commandWith(t, os.Getenv(kernelVar), cmdline, disks...)
}

func commandWith(t *testing.T, kernel, cmdline string, disks ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), guestDeadline)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, "run", "--kernel", kernel, "--append", cmdline, "--memory", "64M", "--no-reboot")
	for _, d := range disks {
		cmd.Args = append(cmd.Args, "--disk", "path="+d)
	}
	cmd.Env = append(os.Environ(), asEbb+"=1")
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// run returns the exit code and what the guest said.
func run(t *testing.T, cmd *exec.Cmd) (int, string) {
	t.Helper()
	var console, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &log
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() < 0) {
		t.Fatalf("ebb: %v (a guest has %v)\n%s\n%s", err, guestDeadline, console.String(), log.String())
	}
	return cmd.ProcessState.ExitCode(), console.String()
}

func mustMeasure(t *testing.T, cmd *exec.Cmd) report.DiskBench {
	t.Helper()
	code, console := run(t, cmd)
	b, err := report.ParseDiskBench(console)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v\n%s", code, err, console)
	}
	return b
}

func TestRead(t *testing.T) {
	b := mustMeasure(t, command(t, "depth=16 seconds=1 size=8192", makeDisks(t, 2, 8<<20)...))
	if b.Disks != 2 || b.Depth != 16 || b.Size != 8192 || b.Errors != 0 {
		t.Errorf("%+v", b)
	}
	if b.IOPS <= 0 || b.Slowest.IOPS <= 0 || b.Slowest.IOPS > b.Fastest.IOPS || b.Slowest.IOPS+b.Fastest.IOPS > b.IOPS*1.01 {
		t.Errorf("rates that can't be: %+v", b)
	}
	if b.P50 <= 0 || b.P50 > b.P99 || b.P99 > b.P999 || b.P999 > b.Max {
		t.Errorf("latencies that can't be: %+v", b)
	}
	if b.Kicks <= 0 || float64(b.Kicks) > 2*b.IOPS {
		t.Errorf("%d kicks", b.Kicks)
	}
}

func TestVerify(t *testing.T) {
	disks := makeDisks(t, 4, 4<<20)
	b := mustMeasure(t, command(t, "verify mode=mix depth=32 seconds=1 flush=50 seed=7", disks...))
	if b.Disks != 4 || b.Errors != 0 || b.Mismatches != 0 || b.Verified == 0 {
		t.Errorf("%+v", b)
	}
	for i, path := range disks { // the guest must have written where it says
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(data, []byte("!ebbdisk")) {
			t.Errorf("disk %d holds nothing of the guest's", i)
		}
	}
}

// A disk that loses what was written to it is found out.
func TestVerifyFindsLoss(t *testing.T) {
	disk := makeDisks(t, 1, 1<<20)[0]
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := command(t, "verify mode=mix depth=8 forever", disk)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	zeroes := make([]byte, 1<<20)
	found := false
	for console := bufio.NewScanner(out); !found && console.Scan(); {
		if _, err := f.WriteAt(zeroes, 0); err != nil { // once a second: at every line of the guest's
			t.Fatal(err)
		}
		found = strings.HasPrefix(console.Text(), "diskbench: MISMATCH disk 0 ")
	}
	cmd.Process.Kill()
	io.Copy(io.Discard, out)
	cmd.Wait()
	if !found {
		t.Error("the guest did not notice")
	}
}

func TestWhatCantBeRun(t *testing.T) {
	disks := makeDisks(t, 1, 4<<20)
	for cmdline, words := range map[string]string{
		"depth=0":             "depth=",
		"depth=":              "depth=",
		"size=1000":           "multiple of 512",
		"mode=rewind":         "mode=",
		"verify":              "mode=write or mode=mix",
		"depth=300":           "descriptors",
		"depth=80 size=65536": "too few",
	} {
		code, console := run(t, command(t, cmdline, disks...))
		if _, err := report.ParseDiskBench(console); err == nil || !strings.Contains(err.Error(), words) || code != exitPanicked {
			t.Errorf("%s: exit code %d, error %v, want %d and %q", cmdline, code, err, exitPanicked, words)
		}
	}
	if _, console := run(t, command(t, "")); !strings.Contains(console, "no virtio disk") {
		t.Errorf("without a disk: %s", console)
	}
}

// Without the PVH note the kernel is entered in 64-bit mode.
func Test64BitEntry(t *testing.T) {
	data, err := os.ReadFile(os.Getenv(kernelVar))
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(data, []byte("Xen\x00"), []byte("Nex\x00"), 1)
	if bytes.Equal(other, data) {
		t.Fatal("the kernel has no PVH note")
	}
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if b := mustMeasure(t, commandWith(t, path, "depth=4 seconds=1", makeDisks(t, 1, 1<<20)...)); b.Depth != 4 || b.IOPS <= 0 {
		t.Errorf("%+v", b)
	}
}
