package tests

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/machine"
)

// hot is a disk that comes and goes.
type hot struct {
	machine.Disk
	size int64
}

func newHot(t *testing.T, id string, size int64) hot {
	return hot{machine.Disk{ID: id, Serial: "serial-" + id, Path: makeImage(t, id, size)}, size}
}

func (g *guestMachine) add(d hot) {
	g.t.Helper()
	if _, err := g.AddDisk(g.ctx, d.Disk); err != nil {
		g.t.Fatalf("%v\n%s", err, g.out)
	}
}

// remove has the guest let go of a disk and checks that the host has let go as well.
func (g *guestMachine) remove(d hot) {
	g.t.Helper()
	if err := g.RemoveDisk(g.ctx, d.ID); err != nil {
		g.t.Fatalf("%v\n%s\n%s", err, g.run("dmesg | tail -30"), g.log)
	}
	img, err := blk.OpenImage(d.Path, blk.ImageOptions{})
	if err != nil {
		g.t.Fatalf("after it was removed: %v", err)
	}
	if err := img.Close(); err != nil {
		g.t.Error(err)
	}
}

// name waits until the guest has a disk and returns its name there.
func (g *guestMachine) name(d hot) string {
	g.t.Helper()
	out := g.run("until grep -qs %s /sys/block/*/serial; do sleep 0.1; done; grep -ls %s /sys/block/*/serial", d.Serial, d.Serial)
	fields := strings.Split(strings.TrimSpace(out), "/")
	if len(fields) != 5 {
		g.t.Fatalf("disk %s in the guest: %q", d.ID, out)
	}
	return fields[3]
}

// gone waits until the guest doesn't have a disk.
func (g *guestMachine) gone(d hot) {
	g.t.Helper()
	g.run("while grep -qs %s /sys/block/*/serial; do sleep 0.1; done", d.Serial)
}

// wantSize waits until the guest sees a size in bytes.
func (g *guestMachine) wantSize(name string, size int64) {
	g.t.Helper()
	g.run("until [ $(cat /sys/block/%s/size) = %d ]; do sleep 0.1; done", name, size/512)
}

const patternSize = 1 << 20

// write has the guest write a disk's serial number over its first MiB, and reads that
// back on the host.
func (g *guestMachine) write(d hot, name string) {
	g.t.Helper()
	out := g.run("yes %s | head -c %d > /tmp/pattern; dd if=/tmp/pattern of=/dev/%s bs=64k oflag=direct conv=fsync 2>&1 && echo written", d.Serial, patternSize, name)
	if !strings.Contains(out, "written") {
		g.t.Fatalf("writing to %s: %s", name, out)
	}
	data, err := os.ReadFile(d.Path)
	if err != nil {
		g.t.Fatal(err)
	}
	if want := bytes.Repeat([]byte(d.Serial+"\n"), patternSize)[:patternSize]; !bytes.Equal(data[:patternSize], want) {
		g.t.Errorf("disk %s begins with %q", d.ID, data[:64])
	}
}

// read has the guest check what write wrote.
func (g *guestMachine) read(d hot, name string) {
	g.t.Helper()
	out := g.run("yes %s | head -c %d | md5sum; dd if=/dev/%s bs=64k count=%d iflag=direct 2>/dev/null | md5sum", d.Serial, patternSize, name, patternSize>>16)
	if sums := strings.Fields(out); len(sums) != 4 || sums[0] != sums[2] {
		g.t.Errorf("%s reads back as %q", name, out)
	}
}

// slotOf returns the guest's directory for the slot that a disk is in.
func (g *guestMachine) slotOf(name string) string {
	g.t.Helper()
	out := g.run("a=$(readlink -f /sys/block/%s/device); a=${a%%/*}; a=${a##*/}; grep -l ${a%%.*} /sys/bus/pci/slots/*/address", name)
	dir, ok := strings.CutSuffix(strings.TrimSpace(out), "/address")
	if !ok {
		g.t.Fatalf("the slot of %s: %q\n%s", name, out, g.run("grep . /sys/bus/pci/slots/*/address"))
	}
	return dir
}

func (g *guestMachine) reboots() {
	g.t.Helper()
	prompts := strings.Count(g.out.String(), prompt)
	if err := g.Input([]byte("reboot -f\n")); err != nil {
		g.t.Fatal(err)
	}
	for {
		changed := g.out.grows()
		if strings.Count(g.out.String(), prompt) > prompts {
			return
		}
		select {
		case <-changed:
		case <-g.over:
			g.t.Fatalf("the guest ended: %v, %v\n%s", g.end, g.err, g.out)
		case <-g.ctx.Done():
			g.t.Fatalf("the guest doesn't come back\n%s", g.out)
		}
	}
}

// Disks come and go in a stock guest, which does with them what it likes.
func TestHotplug(t *testing.T) {
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			cold := newHot(t, "cold", 4<<20)
			a, b := newHot(t, "a", 8<<20), newHot(t, "b", 16<<20)
			b.Direct = true
			g := startMachine(t, series, machine.Config{CPUs: 2, Disks: []machine.Disk{cold.Disk}, HotplugSlots: 2})
			g.expect(prompt)

			g.add(a)
			g.add(b)
			for _, d := range []hot{a, b} {
				name := g.name(d)
				g.wantSize(name, d.size)
				g.write(d, name)
			}

			g.remove(a)
			g.gone(a)
			g.read(b, g.name(b))
			g.add(a) // with what it had
			g.read(a, g.name(a))

			// A guest learns of a new size without being asked to look.
			for _, d := range []hot{cold, b} {
				if err := g.ResizeDisk(g.ctx, d.ID, uint64(4*d.size)); err != nil {
					t.Fatal(err)
				}
				name := g.name(d)
				g.wantSize(name, 4*d.size)
				if out := g.run("dd if=/dev/zero of=/dev/%s bs=512 count=1 seek=%d oflag=direct 2>&1 && echo written", name, 4*d.size/512-1); !strings.Contains(out, "written") {
					t.Errorf("the new end of %s: %s", name, out)
				}
			}

			// Somebody who doesn't wait does no harm: asked once or twice, the guest lets go.
			ctx, cancel := context.WithCancel(g.ctx)
			cancel()
			if err := g.RemoveDisk(ctx, a.ID); !errors.Is(err, context.Canceled) {
				t.Errorf("not waiting: %v", err)
			}
			g.remove(a)

			g.reboots()
			name := g.name(b)
			g.wantSize(name, 4*b.size)
			g.read(b, name)
			if out := g.run("grep -s . /sys/block/*/serial"); strings.Contains(out, a.Serial) {
				t.Errorf("after a reboot a removed disk is back: %s", out)
			}
			g.remove(b)
			g.gone(b)
			if err := g.PowerButton(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The guest finds a disk in each slot of the most there can be.
func TestEveryHotplugSlot(t *testing.T) {
	g := startMachine(t, "6.1", machine.Config{HotplugSlots: machine.MaxHotplugSlots})
	g.expect(prompt)
	var disks []hot
	for i := range machine.MaxHotplugSlots {
		disks = append(disks, newHot(t, string(rune('a'+i)), 4<<20))
		g.add(disks[i])
	}
	for _, d := range disks {
		g.write(d, g.name(d))
	}
}

// A guest that turns slots off and on as it likes, and one that has I/O on a disk
// that is taken away.
func TestHotplugByTheGuest(t *testing.T) {
	g := startMachine(t, "6.1", machine.Config{CPUs: 2, HotplugSlots: 1})
	g.expect(prompt)
	a, b := newHot(t, "a", 8<<20), newHot(t, "b", 64<<20)
	g.add(a)
	name := g.name(a)
	g.write(a, name)
	slot := g.slotOf(name)
	for range 2 {
		g.run("echo 0 > %s/power", slot)
		g.gone(a)
		g.run("echo 1 > %s/power", slot)
		g.read(a, g.name(a))
	}
	g.run("echo 0 > %s/power", slot)
	g.remove(a) // asks nobody
	g.add(b)
	name = g.name(b)
	g.run("(while [ -b /dev/%[1]s ] && dd if=/dev/zero of=/dev/%[1]s bs=64k count=1024 oflag=direct; do :; done) > /tmp/dd.log 2>&1 & true", name)
	g.remove(b)
	g.gone(b)
	g.run("wait")
}
