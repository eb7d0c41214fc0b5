package tests

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/ebb-vmm/ebb/guest/pattern"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// disks makes four images that differ in how they are opened, and their options.
func disks(t *testing.T, size int64) (paths, args []string) {
	for i, options := range []string{"", ",direct", ",queues=1", ",direct,queues=2,queue-size=64"} {
		path := makeImage(t, fmt.Sprint(i), size)
		paths = append(paths, path)
		args = append(args, "--disk", "path="+path+",serial="+serial(i)+options)
	}
	return paths, args
}

// Guests verify what they wrote by themselves, with checksums, under flushes and
// discards, on all disks at once. What they leave behind the host reads back.
func TestGuestDataIsOnTheHost(t *testing.T) {
	const size = 24 << 20
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			paths, args := disks(t, size)
			args = append(programArgs(series, "fio:size=8m,discard,pattern"), args...)
			r := startEbb(t, append(args, "--cpus", "2")...).mustEnd(0)
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			for i, path := range paths {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := pattern.CheckReader(f, serial(i), 0, size); err != nil {
					t.Errorf("disk %d: %v", i, err)
				}
			}
		})
	}
}

// The other way round: what the host wrote the guest reads.
func TestHostDataIsInTheGuest(t *testing.T) {
	const size = 8 << 20
	paths, args := disks(t, size)
	for i, path := range paths {
		data := make([]byte, size)
		pattern.Fill(data, serial(i), 0)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := startEbb(t, append(kernelArgs("6.1", "vmlinux", "verify"), args...)...).mustEnd(0)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestFileSystemsSurvive(t *testing.T) {
	fsck, err := exec.LookPath("e2fsck")
	if err != nil {
		lab.SkipTest(t, "e2fsck (Debian package e2fsprogs) is not installed")
	}
	paths, args := disks(t, 64<<20)
	args = append(programArgs("6.1", "ext4"), args...)
	r := startEbb(t, append(args, "--cpus", "2")...).mustEnd(0)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if out, err := exec.Command(fsck, "-fn", path).CombinedOutput(); err != nil {
			t.Errorf("e2fsck -fn %s: %v\n%s", path, err, out)
		}
	}
}
