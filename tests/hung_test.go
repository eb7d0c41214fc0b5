package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/tests/bench/nullblk"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// hanging is a device over one that keeps data and has a write cache, so that flushes reach it.
type hanging struct {
	t *testing.T
	*nullblk.Mapped
}

func newHanging(t *testing.T) *hanging {
	t.Helper()
	const mib = 64
	device, err := nullblk.MakeHanging(nullDevice(t, mib, "cache_size", "1"), mib)
	if err != nil {
		lab.SkipTest(t, "no device that hangs to be had (dmsetup and module dm-mod, as root):", err)
	}
	h := &hanging{t, device}
	t.Cleanup(func() { h.must(h.Remove()) })
	return h
}

func (h *hanging) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// hang is to be called when ebb has been started: so that the device is back before ebb is
// waited for, which takes an answer even when it is killed.
func (h *hanging) hang() {
	h.t.Helper()
	h.t.Cleanup(h.resume)
	h.must(h.Hang())
	release := time.AfterFunc(guestDeadline, func() { _ = h.Resume() })
	h.t.Cleanup(func() { release.Stop() })
}

func (h *hanging) resume() {
	h.t.Helper()
	h.must(h.Resume())
}

// wantLocked checks that nobody gets the device as a disk.
func (h *hanging) wantLocked() {
	h.t.Helper()
	if img, err := blk.OpenImage(h.Path, blk.ImageOptions{}); err == nil {
		img.Close()
		h.t.Error("the lock is gone while requests are in flight")
	} else if !errors.Is(err, blk.ErrLocked) {
		h.t.Error(err)
	}
}

func (h *hanging) wantFree() {
	h.t.Helper()
	img, err := blk.OpenImage(h.Path, blk.ImageOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	img.Close()
}

// disk is a VM's figures of one disk.
func (e *ebb) disk(vm, id string) (d control.DiskStats) {
	e.t.Helper()
	var s control.Stats
	if err := json.Unmarshal([]byte(e.ask("stats", vm, "--json")), &s); err != nil {
		e.t.Fatal(err)
	}
	for _, d := range s.Disks {
		if d.ID == id {
			return d
		}
	}
	e.t.Fatalf("no disk %s in %+v", id, s)
	return d
}

// until asks for a disk's figures until they are as wanted.
func (e *ebb) until(vm, id, what string, done func(control.DiskStats) bool) control.DiskStats {
	e.t.Helper()
	for deadline := time.Now().Add(guestDeadline / 2); ; { // while the guest lives
		d := e.disk(vm, id)
		if done(d) {
			return d
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("waiting for %s, disk %s is at %+v\n%s", what, id, d, e.transcript())
		}
	}
}

const stuckReads = 11

// stuck has the guest begin stuckReads reads and a flush of a disk that hangs, and waits
// until at least so many requests are in flight.
func (e *ebb) stuck(vm, id, device string, inFlight int) {
	e.t.Helper()
	e.run(fmt.Sprintf("for i in $(seq %d); do dd if=/dev/%[2]s of=/dev/null bs=4k count=1 skip=$i iflag=direct & done >/dev/null 2>&1; dd if=/dev/null of=/dev/%[2]s conv=notrunc,fsync & true", stuckReads, device))
	e.until(vm, id, "the requests to be stuck", func(d control.DiskStats) bool { return d.InFlight >= inFlight })
}

// complains waits until ebb's standard error has text.
func (e *ebb) complains(text string) {
	e.t.Helper()
	if !e.await(func() bool { return strings.Contains(e.stderr.String(), text) }) {
		e.wait()
		e.t.Fatalf("ebb ended before it said %q\n%s", text, e.transcript())
	}
}

// A disk whose device answers nothing any more, with more requests than the engine has room
// for: the other disk goes on, and what the hung one has stays until the device is back.
func TestHungDiskIsRemoved(t *testing.T) {
	const most, share = 8, 4 // requests in flight: of all disks, of each
	for _, engine := range []string{"uring", "native", "threads"} {
		t.Run(engine, func(t *testing.T) {
			h := newHanging(t)
			e := startEbb(t, append(kernelArgs("6.1", "vmlinux", ""), "--name", "hung", "--aio", engine, "--aio-max", fmt.Sprint(most),
				"--disk", "path="+makeImage(t, "fast", 8<<20)+",direct")...)
			e.expect(prompt)
			e.run("(while dd if=/dev/vda of=/dev/null bs=4k count=256 iflag=direct; do :; done) >/dev/null 2>&1 & true")
			e.ask("disk", "add", "hung", "path="+h.Path+",direct,id=slow")
			e.run("until grep -qs slow /sys/block/*/serial; do sleep 0.1; done")
			h.hang()
			e.stuck("hung", "slow", "vdb", share)

			remove := startEbb(t, "disk", "remove", "hung", "slow", "--timeout", "10m")
			remove.complains("ebb: waiting for the guest to let go of disk slow, and for its storage to answer ")
			before := e.disk("hung", "vda").Read.Requests
			e.until("hung", "vda", "the other disk to go on", func(d control.DiskStats) bool { return d.Read.Requests > before+300 })
			if said := remove.transcript(); !regexp.MustCompile(`to answer [4-8] requests in flight; until then `).MatchString(said) {
				t.Errorf("not told what is awaited: %s", said)
			}
			h.wantLocked()
			again := startEbb(t, "disk", "add", "hung", "path="+h.Path+",direct")
			again.mustEnd(1)
			again.complains("is in use by another process or another disk of this VM")

			h.resume()
			remove.mustEnd(0)
			h.wantFree()
			e.terminate()
			e.mustEnd(1)
		})
	}
}

// A VM that ends while disks hang stays, with its memory and its locks, until they are
// back, and says what it waits for.
func TestHungDisksHoldUpTheEnd(t *testing.T) {
	requests := fmt.Sprintf("%d of disk vda, %[1]d of disk vdb", stuckReads+1)
	for _, c := range []struct {
		engine, name string
		end          func(t *testing.T, e *ebb) (waiting *ebb)
		exit         int
		waitingExit  int
	}{
		{"uring", "killed", func(t *testing.T, e *ebb) *ebb {
			first := startEbb(t, "kill", "hung", "--timeout", "1s")
			first.mustEnd(1)
			first.complains("ebb: the guest of hung has ended, but its disks have not let go within 1s (requests in flight: " + requests + "): ")
			return startEbb(t, "kill", "hung")
		}, 1, 0},
		// With requests of its disks in flight the guest was not seen to power off: it is reset.
		{"native", "reset", func(t *testing.T, e *ebb) *ebb {
			first := startEbb(t, "stop", "hung", "--timeout", "1s")
			first.mustEnd(1)
			first.complains("ebb: hung did not power off within 1s (its disk requests in flight: " + requests + "); `ebb kill hung` pulls its plug\n")
			stop := startEbb(t, "stop", "hung")
			stop.complains("for the guest of hung to power off")
			if _, err := e.stdin.Write([]byte("echo b > /proc/sysrq-trigger\n")); err != nil {
				t.Fatal(err)
			}
			return stop
		}, 3, 1},
		{"threads", "terminated", func(t *testing.T, e *ebb) *ebb {
			e.terminate()
			return nil
		}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newHanging(t), newHanging(t)
			e := startEbb(t, append(kernelArgs("6.1", "vmlinux", ""), "--name", "hung", "--no-reboot", "--aio", c.engine,
				"--disk", "path="+a.Path+",direct", "--disk", "path="+b.Path+",direct")...)
			e.expect(prompt)
			a.hang()
			b.hang()
			e.stuck("hung", "vda", "vda", stuckReads+1)
			e.stuck("hung", "vdb", "vdb", stuckReads+1)

			waiting := c.end(t, e)
			if waiting != nil {
				waiting.complains("ebb: the guest has ended; waiting for its requests in flight: " + requests + "\n")
			}
			for _, disk := range []string{"vda", "vdb"} {
				e.complains("waiting for the storage of a disk to answer: until then guest memory and the image's lock stay\" disk=" + disk)
			}
			a.wantLocked()
			b.wantLocked()
			a.resume()
			e.until("hung", "vda", "the disk that is back", func(d control.DiskStats) bool { return d.InFlight == 0 })
			if d := e.disk("hung", "vdb"); d.InFlight != stuckReads+1 {
				t.Errorf("the disk that still hangs is at %+v", d)
			}
			b.wantLocked()
			b.resume()
			e.mustEnd(c.exit)
			if waiting != nil {
				waiting.mustEnd(c.waitingExit)
			}
			a.wantFree()
			b.wantFree()
		})
	}
}

// Even a process that doesn't wait leaves nothing that the kernel still works with. The
// signals arrive although threads hang in system calls.
func TestHungDiskAfterTheSecondSignal(t *testing.T) {
	h := newHanging(t)
	e := startEbb(t, append(kernelArgs("6.1", "vmlinux", ""), "--name", "hung", "--aio", "threads", "--disk", "path="+h.Path+",direct")...)
	e.expect(prompt)
	h.hang()
	e.stuck("hung", "vda", "vda", stuckReads+1)
	e.terminate()
	e.complains("waiting for the storage of a disk")
	e.terminate()
	e.complains("ended without waiting for the disks")
	h.wantLocked()
	h.resume()
	e.mustEnd(1)
	h.wantFree()
}
