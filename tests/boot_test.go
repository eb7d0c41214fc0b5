package tests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/guest/report"
)

// Every pair of the properties occurs in some guest.
func TestBoot(t *testing.T) {
	for _, c := range []struct {
		series, format string
		cpus, disks    int
		memoryMiB      int64
	}{
		{"6.1", "bzImage", 1, 1, 256},
		{"6.1", "vmlinux", 2, 16, 5120},
		{"6.12", "bzImage", 2, 16, 256},
		{"6.12", "vmlinux", 1, 16, 256},
		{"6.12", "vmlinux", 2, 1, 5120},
		{"6.1", "bzImage", 2, 4, 5120},
		{"6.12", "bzImage", 1, 4, 5120},
		{"6.1", "vmlinux", 1, 4, 256},
		{"6.1", "vmlinux", 1, 64, 512}, // more than slots: some share one as its functions
	} {
		name := fmt.Sprintf("%s-%s-cpus=%d-disks=%d-memory=%dM", c.series, c.format, c.cpus, c.disks, c.memoryMiB)
		t.Run(name, func(t *testing.T) {
			args := append(kernelArgs(c.series, c.format, "report"),
				"--cpus", fmt.Sprint(c.cpus), "--memory", fmt.Sprintf("%dM", c.memoryMiB))
			for i := range c.disks {
				disk := "path=" + makeImage(t, fmt.Sprint(i), int64(i+1)<<20) + ",serial=" + serial(i)
				if i == 2 {
					disk += ",readonly"
				}
				args = append(args, "--disk", disk)
			}
			e := startEbb(t, args...)
			r := e.mustEnd(0)
			if err := r.Err(); err != nil {
				t.Fatalf("%v\n%s", err, e.transcript())
			}
			if !strings.HasPrefix(r.Kernel, c.series+".") {
				t.Errorf("kernel %s", r.Kernel)
			}
			if r.CPUs != c.cpus {
				t.Errorf("%d CPUs", r.CPUs)
			}
			// The kernel keeps some memory for itself.
			if low, high := c.memoryMiB<<20*80/100, c.memoryMiB<<20; r.Memory < low || r.Memory > high {
				t.Errorf("%d MiB of memory", r.Memory>>20)
			}
			if len(r.Disks) != c.disks {
				t.Fatalf("%d disks\n%s", len(r.Disks), e.transcript())
			}
			// Linux goes slot by slot, function by function: beyond 30 disks its names are
			// not in the order of the options.
			bySerial := map[string]report.Disk{}
			for _, d := range r.Disks {
				bySerial[d.Serial] = d
			}
			for i := range c.disks {
				d := bySerial[serial(i)]
				if c.disks <= 30 && d != r.Disks[i] {
					t.Errorf("disk %d of the guest is %v", i, r.Disks[i])
				}
				if d.Serial != serial(i) || d.Size != int64(i+1)<<20 || d.ReadOnly != (i == 2) || d.Block != 512 || d.Queues != c.cpus {
					t.Errorf("disk %d: %v", i, d)
				}
			}
		})
	}
}

// A vmlinux without the PVH note is entered at its 64-bit entry point.
func TestBootBy64BitEntry(t *testing.T) {
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			data, err := os.ReadFile(images.Small[series].Kernel.Vmlinux)
			if err != nil {
				t.Fatal(err)
			}
			const note, other = "\x12\x00\x00\x00Xen\x00", "\x13\x00\x00\x00Xen\x00"
			if bytes.Count(data, []byte(note)) != 1 {
				t.Fatal("the PVH note is not where it is expected")
			}
			kernel := filepath.Join(t.TempDir(), "vmlinux")
			if err := os.WriteFile(kernel, bytes.Replace(data, []byte(note), []byte(other), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			args := kernelArgs(series, "vmlinux", "report")
			args = append(args, "--kernel", kernel, "--cpus", "2", "--disk", "path="+makeImage(t, "disk", 1<<20))
			e := startEbb(t, args...)
			if r := e.mustEnd(0); r.Err() != nil || r.CPUs != 2 || len(r.Disks) != 1 {
				t.Errorf("%v, %d CPUs, %d disks\n%s", r.Err(), r.CPUs, len(r.Disks), e.transcript())
			}
		})
	}
}

func serial(i int) string { return fmt.Sprintf("serial-%d", i) }

func TestRebootBootsAgain(t *testing.T) {
	args := append(kernelArgs("6.1", "vmlinux", "reboot:once=vda,report"), "--disk", "path="+makeImage(t, "disk", 1<<20))
	r := startEbb(t, args...).mustEnd(0)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if r.Boots != 2 {
		t.Errorf("%d boots, want 2", r.Boots)
	}
	if len(r.Disks) != 1 {
		t.Errorf("after the reboot: %d disks", len(r.Disks))
	}
}

func TestNoReboot(t *testing.T) {
	args := append(kernelArgs("6.12", "vmlinux", "reboot"), "--no-reboot")
	if r := startEbb(t, args...).mustEnd(3); r.Boots != 1 {
		t.Errorf("%d boots", r.Boots)
	}
}

func TestPanicIsReported(t *testing.T) {
	e := startEbb(t, kernelArgs("6.1", "vmlinux", "panic")...)
	e.mustEnd(4)
	if !strings.Contains(e.stderr.String(), "panicked") {
		t.Errorf("stderr doesn't say so: %s", e.stderr.String())
	}
	if !strings.Contains(e.stdout.String(), "Kernel panic") {
		t.Error("the panic's own message did not reach the console")
	}
}

func TestShellEndsWithItsInput(t *testing.T) {
	e := startEbb(t, append(kernelArgs("6.1", "vmlinux", ""), "--disk", "path="+makeImage(t, "disk", 1<<20))...)
	e.expect("ebb:/#")
	if got := e.run("cat /sys/block/vda/size"); got != "2048\n" {
		t.Errorf("size of vda: %q", got)
	}
	e.stdin.Close()
	e.mustEnd(0)
}

func TestTermSignalEndsTheGuest(t *testing.T) {
	e := startEbb(t, kernelArgs("6.1", "vmlinux", "")...)
	e.expect("ebb:/#")
	e.terminate()
	code, _ := e.wait()
	if code != 1 || !strings.Contains(e.stderr.String(), "stopped") {
		t.Errorf("exit code %d\n%s", code, e.transcript())
	}
}
