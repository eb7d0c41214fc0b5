package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest"
)

// need skips a test where no lab can be made.
func need(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a lab")
	}
	if err := Available(); err != nil {
		SkipTest(t, err)
	}
	dir, err := guest.BuildDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.FetchKernel(t.Context(), dir, guest.DefaultSeries); err != nil {
		SkipTest(t, err)
	}
	t.Cleanup(func() {
		if left := children(t); len(left) > 0 {
			t.Errorf("processes left behind: %v", left)
		}
	})
}

// shell runs a script in a lab.
func shell(t *testing.T, o Options, script, stdin string) (code int, out, complaints string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code, err = Run(t.Context(), o, []string{"sh", "-c", script}, strings.NewReader(stdin), &stdout, &stderr)
	return code, stdout.String(), stderr.String(), err
}

func TestCommandSeesItsWorldAndAKVM(t *testing.T) {
	need(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := make([]byte, 3<<20+17)
	rand.New(rand.NewSource(1)).Read(binary)
	var stdout, stderr bytes.Buffer
	var boot Boot
	o := Options{
		Env:     append(Environment(), helperVariable+"=describe", "EBB_LAB_TEST=with space"),
		Started: func(b Boot) { boot = b },
	}
	code, err := Run(t.Context(), o, []string{self, "a b", ""}, bytes.NewReader(binary), &stdout, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	if code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if !bytes.Equal(stdout.Bytes(), binary) {
		t.Errorf("%d bytes went in, %d others came out", len(binary), stdout.Len())
	}
	var d description
	if err := json.Unmarshal(stderr.Bytes(), &d); err != nil {
		t.Fatalf("%v in %q", err, stderr.String())
	}
	wd, _ := os.Getwd()
	want := description{Host: "lab", Dir: wd, Variable: "with space", KVMVersion: 12, Args: []string{"a b", ""}}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("the command saw %+v, want %+v", d, want)
	}
	t.Logf("boot: %+v", boot)
}

func TestWritesStayInTheLabButInShares(t *testing.T) {
	need(t)
	shared, private := t.TempDir(), t.TempDir()
	drive := filepath.Join(t.TempDir(), "drive")
	if err := os.WriteFile(drive, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(private, "old"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Shares: []string{shared}, Drives: []string{"format=raw,file=" + drive}, Modules: []string{"null_blk nr_devices=1 gb=1"}}
	code, out, complaints, err := shell(t, o, `set -e
		echo result >`+shared+`/result
		echo new >`+private+`/old
		echo new >`+private+`/new
		printf sector | dd of=/dev/vda conv=notrunc status=none
		dd if=/dev/zero of=`+private+`/direct bs=4096 count=16 oflag=direct status=none
		cat /sys/block/nullb0/size
		cat /sys/class/net/lo/operstate >/dev/null
		sleep 1000 & # holds stdout open and must not keep the lab
	`, "not read")
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v, %s", code, err, complaints)
	}
	if out != "2097152\n" {
		t.Errorf("output %q", out)
	}
	if b, err := os.ReadFile(filepath.Join(shared, "result")); string(b) != "result\n" {
		t.Errorf("result in the share: %q, %v", b, err)
	}
	if b, err := os.ReadFile(drive); !bytes.HasPrefix(b, []byte("sector\x00")) || len(b) != 1<<20 {
		t.Errorf("drive: %d bytes, %v", len(b), err)
	}
	if b, _ := os.ReadFile(filepath.Join(private, "old")); string(b) != "old" {
		t.Errorf("the lab changed a file of the machine to %q", b)
	}
	if names, _ := os.ReadDir(private); len(names) != 1 {
		t.Errorf("the lab left files on the machine: %v", names)
	}
}

func TestEndsThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name, script string
		code         int
		err          string
	}{
		{"signal", "kill -9 $$", 137, ""},
		{"reset", "echo b >/proc/sysrq-trigger; sleep 1000", -1, "without reporting the command's end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			need(t)
			code, _, _, err := shell(t, Options{}, c.script, "")
			if code != c.code || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("exit code %d, %v", code, err)
			}
		})
	}
}

func TestUnknownCommand(t *testing.T) {
	need(t)
	var stderr bytes.Buffer
	code, err := Run(t.Context(), Options{ScratchGiB: -1, Kernel: "6.12"}, []string{"no-such-command"}, nil, nil, &stderr)
	if code != 127 || err != nil || !strings.Contains(stderr.String(), "no-such-command") {
		t.Errorf("exit code %d, %v, %q", code, err, stderr.String())
	}
}

func TestDeadlineSaysHowFarItCame(t *testing.T) {
	need(t)
	code, _, _, err := shell(t, Options{Deadline: 1}, "true", "")
	if code != -1 || err == nil || !strings.Contains(err.Error(), "deadline of 1ns has passed") {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// A lab that is not ready in time is booted again, some times, and reads nothing of what is meant for the command.
func TestNeverReady(t *testing.T) {
	need(t)
	limit := bootLimit
	defer func() { bootLimit = limit }()
	bootLimit = 1
	in := strings.NewReader("for the command")
	code, err := Run(t.Context(), Options{}, []string{"true"}, in, nil, nil)
	if code != -1 || !errors.Is(err, errNeverReady) || in.Len() != len("for the command") {
		t.Errorf("exit code %d, %v, %d bytes left", code, err, in.Len())
	}
}

// cancelOn cancels a context when it is written to.
type cancelOn struct{ cancel context.CancelFunc }

func (c cancelOn) Write(p []byte) (int, error) {
	c.cancel()
	return len(p), nil
}

func TestCancelEndsARunningCommand(t *testing.T) {
	need(t)
	ctx, cancel := context.WithCancel(t.Context())
	code, err := Run(ctx, Options{}, []string{"sh", "-c", "echo started; exec sleep 1000"}, nil, cancelOn{cancel}, nil)
	if code != -1 || err == nil || !strings.Contains(err.Error(), "context canceled while the command ran") {
		t.Errorf("exit code %d, %v", code, err)
	}
}

func TestBrokenQEMUIsExplained(t *testing.T) {
	need(t)
	_, _, _, err := shell(t, Options{QEMU: []string{"-no-such-option"}}, "true", "")
	if err == nil || !strings.Contains(err.Error(), "no-such-option: invalid option") {
		t.Errorf("%v", err)
	}
}

func TestQEMUThatIsNone(t *testing.T) {
	need(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, qemuProgram), []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	code, _, _, err := shell(t, Options{}, "true", "")
	if code != -1 || !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// TestKilledLauncherLeavesNothing kills a launcher that has no chance to clean up.
func TestKilledLauncherLeavesNothing(t *testing.T) {
	need(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperVariable+"=launch")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 100)); err != nil { // "running"
		t.Fatal(err)
	}
	var watch []unix.PollFd
	for _, pid := range childrenOf(t, cmd.Process.Pid) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		watch = append(watch, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if len(watch) < 2 {
		t.Fatalf("%d children of the launcher, want QEMU and a file server", len(watch))
	}
	cmd.Process.Kill()
	cmd.Wait()
	for i := range watch {
		if _, err := unix.Poll(watch[i:i+1], -1); err != nil { // the test's own timeout is the bound
			t.Fatal(err)
		}
	}
}

func children(t *testing.T) []int { return childrenOf(t, os.Getpid()) }

// childrenOf lists the children of a process, of all its threads.
func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread is gone
		}
		for _, word := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	return pids
}
