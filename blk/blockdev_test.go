package blk

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// loopDevice puts a file of n bytes behind a block device, or skips the test where
// that is not allowed.
func loopDevice(t *testing.T, n int64, args ...string) string {
	t.Helper()
	path := writeImage(t, n)
	out, err := exec.Command("losetup", append(args, "--find", "--show", path)...).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v %s", dev, err, out)
		}
	})
	return dev
}

func TestBlockDevice(t *testing.T) {
	dev := loopDevice(t, 1<<20)
	img := open(t, dev, ImageOptions{})
	if img.Size() != 1<<20 || !img.device || img.BlockSize() != 512 || !img.zeroes || !img.discard {
		t.Errorf("%+v", img)
	}
	if _, err := OpenImage(dev, ImageOptions{ReadOnly: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	ro := open(t, dev, ImageOptions{ReadOnly: true})
	if ro.discard || ro.zeroes {
		t.Error("a read-only device takes discards")
	}
	ro.Close() //nolint:errcheck // only read
	m := newMachine(t)
	k := m.diskOn(dev, "vda", ImageOptions{}, Config{})
	k.d.Start(virtiotest.Setup{})
	payload := []byte(strings.Repeat("ebb!", 1024))
	k.expect("write", statusOK, typeOut, 8, payload, 0)
	k.expect("flush", statusOK, typeFlush, 0, nil, 0)
	k.expect("zeroes", statusOK, typeWriteZeroes, 0, extentBytes(8, 4, 0), 0)
	k.expect("discard", statusOK, typeDiscard, 0, extentBytes(0, 8, 0), 0)
	if got := k.expect("read", statusOK, typeIn, 8, nil, 4096); strings.Trim(string(got[:2048]), "\x00") != "" || string(got[2048:]) != string(payload[2048:]) {
		t.Error("read returned something else")
	}
}

// A device of 4096-byte sectors: with direct I/O the guest sees them; without, it
// may have smaller ones, but then no discards.
func TestBlockDevice4Kn(t *testing.T) {
	dev := loopDevice(t, 1<<20, "--sector-size", "4096")
	if b, err := os.ReadFile("/sys/block/" + strings.TrimPrefix(dev, "/dev/") + "/queue/logical_block_size"); err != nil || strings.TrimSpace(string(b)) != "4096" {
		t.Skipf("loop device has sectors of %s bytes (%v)", b, err)
	}
	img := open(t, dev, ImageOptions{})
	if img.BlockSize() != 512 || img.discard || img.zeroes {
		t.Errorf("buffered: %+v", img)
	}
	img.Close() //nolint:errcheck // only looked at
	m := newMachine(t)
	k := m.diskOn(dev, "vda", ImageOptions{Direct: true}, Config{})
	if k.img.BlockSize() != 4096 || !k.img.discard || !k.img.zeroes || k.img.physicalSize != 4096 {
		t.Errorf("direct: %+v", k.img)
	}
	k.d.Start(virtiotest.Setup{})
	k.expect("half a block", statusIOErr, typeIn, 0, nil, 512)
	k.expect("between blocks", statusIOErr, typeIn, 1, nil, 4096)
	k.expect("write", statusOK, typeOut, 8, make([]byte, 4096), 0)
	k.expect("read", statusOK, typeIn, 8, nil, 8192)
	k.expect("discard", statusOK, typeDiscard, 0, extentBytes(8, 8, 0), 0)

	// Framing is the driver's business (2.7.4.1): buffers aligned as memory has to be, but none of them whole blocks.
	q, data, status := k.d.Queues[0], m.mem.Alloc(4096, 4096), m.mem.Put([]byte{noStatus})
	q.Add(virtiotest.Buf{Addr: m.mem.Put(headerBytes(typeIn, 8)), Len: headerSize},
		virtiotest.Buf{Addr: data, Len: 512, Write: true}, virtiotest.Buf{Addr: data + 512, Len: 3584, Write: true}, virtiotest.Buf{Addr: status, Len: 1, Write: true})
	q.KickIfWanted()
	q.Wait()
	if got := m.mem.RAM(status, 1)[0]; got != statusOK {
		t.Errorf("a block in two pieces: status %d", got)
	}
}
