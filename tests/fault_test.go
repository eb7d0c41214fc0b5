package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// A disk that fails under a running guest fails the requests that meet the fault,
// and nothing else: not the guest, not the other disks, not the rest of the disk.

const (
	readStart  = "dd if=/dev/vda of=/dev/null bs=64k count=1 iflag=direct"
	readEnd    = "dd if=/dev/vda of=/dev/null bs=64k skip=1016 count=8 iflag=direct"
	readOther  = "dd if=/dev/vdb of=/dev/null bs=64k iflag=direct"
	writeOther = "dd if=/dev/zero of=/dev/vdb bs=64k count=16 oflag=direct"
)

func mustRead(e *ebb, command string) {
	e.t.Helper()
	if got := e.run(command + " 2>&1; echo status $?"); !strings.Contains(got, "status 0") {
		e.t.Errorf("%s: %s", command, got)
	}
}

func mustFail(e *ebb, command string) {
	e.t.Helper()
	if got := e.run(command + " 2>&1"); !strings.Contains(got, "Input/output error") && !strings.Contains(got, "I/O error") {
		e.t.Errorf("%s: %q instead of an I/O error", command, got)
	}
}

func TestTruncatedImage(t *testing.T) {
	image := makeImage(t, "a", 64<<20)
	e := startEbb(t, append(kernelArgs("6.1", "vmlinux", ""),
		"--disk", "path="+image, "--disk", "path="+makeImage(t, "b", 4<<20))...)
	e.expect("ebb:/#")
	mustRead(e, readEnd)
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	mustFail(e, readEnd)
	mustRead(e, readStart)
	mustRead(e, readOther)
	mustRead(e, writeOther)
	e.stdin.Close()
	e.mustEnd(0)
	if s := e.stderr.String(); !strings.Contains(s, "vda") {
		t.Errorf("the log doesn't name the disk: %s", s)
	}
}

func TestFailingDevice(t *testing.T) {
	device := badDevice(t, 64, 1016*64<<10, 1024*64<<10)
	e := startEbb(t, append(kernelArgs("6.1", "vmlinux", ""),
		"--disk", "path="+device+",direct", "--disk", "path="+makeImage(t, "b", 4<<20))...)
	e.expect("ebb:/#")
	mustFail(e, readEnd)
	mustFail(e, "dd if=/dev/zero of=/dev/vda bs=64k seek=1016 count=8 oflag=direct")
	mustRead(e, readStart)
	mustRead(e, "dd if=/dev/zero of=/dev/vda bs=64k count=16 oflag=direct")
	mustRead(e, readOther)
	mustRead(e, writeOther)
	e.stdin.Close()
	e.mustEnd(0)
}

// badDevice makes a block device that keeps data and fails from byte firstBad up to endBad.
func badDevice(t *testing.T, mib int, firstBad, endBad int64) string {
	t.Helper()
	return nullDevice(t, mib, "badblocks", fmt.Sprintf("+%d-%d", firstBad/512, endBad/512-1))
}

// devices counts what nullDevice made.
var devices int

// nullDevice makes a block device of the kernel's null_blk driver that keeps data,
// with another of the driver's settings.
func nullDevice(t *testing.T, mib int, setting, value string) string {
	t.Helper()
	const config = "/sys/kernel/config"
	if _, err := os.Stat(config + "/nullb"); err != nil {
		_ = unix.Mount("configfs", config, "configfs", 0, "")
	}
	devices++
	folder := fmt.Sprintf("ebbtest%d", devices)
	dir := filepath.Join(config, "nullb", folder)
	if err := os.Mkdir(dir, 0o755); err != nil {
		lab.SkipTest(t, "no block device to test with (module null_blk, as root):", err)
	}
	set := func(name, value string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		set("power", "0")
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	set("size", fmt.Sprint(mib))
	set("memory_backed", "1")
	set(setting, value)
	set("power", "1")
	index, err := os.ReadFile(filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	// null_blk calls a device by its folder's name on newer kernels.
	for _, name := range []string{"/dev/" + folder, "/dev/nullb" + strings.TrimSpace(string(index))} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	t.Fatal("null_blk made no device")
	return ""
}
