package tests

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// ask runs an ebb command beside a running guest and returns what it printed.
func (e *ebb) ask(args ...string) string {
	e.t.Helper()
	cmd := ebbCommand(e.t, args...)
	cmd.Env = e.cmd.Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("ebb %s: %v: %s\n%s", strings.Join(args, " "), err, out, e.transcript())
	}
	return string(out)
}

// awaitStops waits until ebb has said n times that a disk stopped the guest.
func (e *ebb) awaitStops(n int) {
	e.t.Helper()
	if !e.await(func() bool { return strings.Count(e.stderr.String(), "the guest is stopped until it is resumed") >= n }) {
		e.t.Fatalf("ebb ended before the guest had stopped %d times\n%s", n, e.transcript())
	}
}

// A full file system stops the guest, which doesn't notice; when there is room again and the
// guest is resumed, the write that failed is carried out.
func TestFullDiskStopsTheGuest(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		lab.SkipTest(t, "needs to mount a tmpfs:", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	image := dir + "/image"
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	e := startEbb(t, append(kernelArgs("6.1", "vmlinux", ""), "--name", "full", "--disk", "path="+image)...)
	e.expect("ebb:/#")
	written := make(chan string, 1)
	go func() {
		defer close(written) // when run has failed, too
		written <- e.run("dd if=/dev/zero of=/dev/vda bs=64k count=256 oflag=direct 2>&1; echo status $?")
	}()

	e.awaitStops(1)
	var list []control.Info
	if err := json.Unmarshal([]byte(e.ask("list", "--json")), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if vm := list[0]; vm.State != "paused" || !strings.Contains(vm.Reason, "vda") || !strings.Contains(vm.Reason, "no space") {
		t.Errorf("the guest is %s, reason %q", vm.State, vm.Reason)
	}
	move := ebbCommand(t, "migrate", "full", "tcp:127.0.0.1:1")
	move.Env = e.cmd.Env
	if out, err := move.CombinedOutput(); err == nil || !strings.Contains(string(out), "it is paused: disk vda failed a write at ") {
		t.Errorf("a migration of it: %v: %s", err, out)
	}
	e.ask("resume", "full") // too early: it stops again
	e.awaitStops(2)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	e.ask("resume", "full")
	if out := <-written; !strings.Contains(out, "status 0") {
		t.Errorf("the guest's write: %s", out)
	}
	if got := e.run("dmesg | grep -ci 'i/o error'"); strings.TrimSpace(got) != "0" {
		t.Errorf("the guest noticed: %s\n%s", e.run("dmesg | tail"), e.stderr.String())
	}
	e.stdin.Close()
	e.mustEnd(0)
}
