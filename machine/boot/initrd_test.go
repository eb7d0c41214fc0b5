package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/machine/memory"
)

// An initrd goes as high as kernel and RAM allow, on a page, above all the
// kernel needs for itself.
func TestInitrdPlacement(t *testing.T) {
	const pref, end = 2 * mib, 4 * mib // the kernel's first and last+1
	for _, c := range []struct {
		ram, initrdMax, size uint64
		want                 uint64 // 0: doesn't fit
	}{
		{16 * mib, 0x7fffffff, 1, 16*mib - 4096},
		{16 * mib, 0x7fffffff, 4096, 16*mib - 4096},
		{16 * mib, 0x7fffffff, 4097, 16*mib - 8192},
		{16 * mib, 16*mib - 2, 1, 16*mib - 4096}, // its last byte may be at initrdMax
		{16 * mib, 16*mib - 2, 4096, 16*mib - 8192},
		{16 * mib, 8*mib - 1, 4096, 8*mib - 4096},
		{16 * mib, 8 * mib, 1, 8 * mib},
		{16 * mib, 8*mib + 10, 12, 8*mib - 4096},
		{16 * mib, 0xffffffff, 12 * mib, end},
		{16 * mib, 0xffffffff, 12*mib + 1, 0},
		{16 * mib, 8*mib - 1, 4 * mib, end},
		{16 * mib, 8*mib - 1, 4*mib + 1, 0},
		{16 * mib, 0xffffffff, 16 * mib, 0},
		{16 * mib, 0xffffffff, 17 * mib, 0},
		{16 * mib, end - 1, 1, 0},
		{16 * mib, end, 1, end},
		{16 * mib, pref, 1, 0},
		{16 * mib, 1, 1, 0},
		{memory.HoleStart + 64*mib, 0xffffffff, 4096, memory.HoleStart - 4096},
		{memory.HoleStart + 64*mib, 0x7fffffff, 4096, 0x80000000 - 4096},
	} {
		t.Run(fmt.Sprintf("%d bytes below %#x of %d MiB", c.size, c.initrdMax, c.ram/mib), func(t *testing.T) {
			ram := newRAM(t, c.ram)
			k := smallBzImage()
			k.InitSize, k.InitrdMax = end-pref, uint32(c.initrdMax)
			initrd := pattern(int(c.size), 5)
			path := writeFile(t, "initrd", initrd)
			_, err := openAndLoad(writeFile(t, "vmlinuz", k.Bytes()), ram, Params{Initrd: path})
			if c.want == 0 {
				wantError(t, err, path, "doesn't fit")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if at, n := read(ram, zeroPageAddr+0x218, 4), read(ram, zeroPageAddr+0x21c, 4); at != c.want || n != c.size {
				t.Errorf("at %#x, %d bytes; want %#x, %d", at, n, c.want, c.size)
			}
			wantBytes(t, ram, c.want, initrd, "initrd")
			wantBytes(t, ram, pref, k.Payload, "payload")
		})
	}
}

// An ELF kernel says nothing of initrds: its highest segment is the bound.
func TestInitrdAboveEverySegment(t *testing.T) {
	k := linkedHigh()
	k.Segments[0], k.Segments[2] = k.Segments[2], k.Segments[0] // the highest isn't the last
	initrd := writeFile(t, "initrd", pattern(4*mib-4096, 5))
	ram := newRAM(t, 16*mib)
	load(t, ram, k.Bytes(), Params{Initrd: initrd})
	if at := read(ram, zeroPageAddr+0x218, 4); at != 12*mib+4096 {
		t.Errorf("at %#x, want %#x", at, 12*mib+4096)
	}
	initrd = writeFile(t, "initrd", pattern(4*mib-4095, 5))
	_, err := openAndLoad(writeFile(t, "vmlinux", k.Bytes()), newRAM(t, 16*mib), Params{Initrd: initrd})
	wantError(t, err, initrd, "doesn't fit")
}

func TestHugeInitrdIsNotRead(t *testing.T) {
	initrd := writeFile(t, "initrd", nil)
	if err := os.Truncate(initrd, 1<<42); err != nil {
		t.Skip("no sparse file of 4 TiB here:", err)
	}
	before := allocated()
	_, err := openAndLoad(writeFile(t, "vmlinuz", smallBzImage().Bytes()), newRAM(t, 16*mib), Params{Initrd: initrd})
	wantError(t, err, initrd, "4194304 MiB")
	if n := allocated() - before; n > mib {
		t.Errorf("%d bytes allocated", n)
	}
}

// The kernel's end need not be on a page; the initrd's start is.
func TestInitrdLeavesTheKernelsLastByteAlone(t *testing.T) {
	k := smallBzImage()
	k.InitSize = 2*mib + 1 // the last byte it needs is the first of a page
	kernel := writeFile(t, "vmlinuz", k.Bytes())
	initrd := writeFile(t, "initrd", pattern(12*mib, 5))
	_, err := openAndLoad(kernel, newRAM(t, 16*mib), Params{Initrd: initrd})
	wantError(t, err, initrd, "doesn't fit")
}

// What is no regular file with something in it is refused, as kernel and as
// initrd, at once: opening a FIFO would wait for its other end.
func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	good := writeFile(t, "vmlinuz", smallBzImage().Bytes())
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			panic("hangs in opening what is no file")
		}
	}()
	for _, c := range []struct{ path, words string }{
		{filepath.Join(dir, "missing"), "no such file"},
		{writeFile(t, "empty", nil), "is empty"},
		{dir, "is a directory"},
		{fifo, "not a regular file"},
		{"/dev/null", "not a regular file"},
		{filepath.Join(good, "x"), "not a directory"},
	} {
		k, err := Open(c.path)
		if err == nil {
			k.Close()
		}
		wantError(t, err, c.path, c.words)
		wantError(t, CheckInitrd(c.path), c.path, c.words)
		_, err = openAndLoad(good, newRAM(t, 16*mib), Params{Initrd: c.path})
		wantError(t, err, c.path, c.words)
	}
	if err := CheckInitrd(good); err != nil {
		t.Error(err)
	}
}

func TestCommandLineLength(t *testing.T) {
	for name, c := range map[string]struct {
		file  []byte
		limit int
	}{
		"the kernel's limit": {smallBzImage().Bytes(), 2047},
		"the loader's limit": {func() []byte { k := smallBzImage(); k.Cmdline = 1 << 20; return k.Bytes() }(), cmdlineMax - 1},
		"ELF":                {smallPVH().Bytes(), cmdlineMax - 1},
	} {
		t.Run(name, func(t *testing.T) {
			ram := newRAM(t, 16*mib)
			longest := strings.Repeat("x", c.limit)
			load(t, ram, c.file, Params{Cmdline: longest})
			wantBytes(t, ram, cmdlineAddr, append([]byte(longest), 0), "command line")
			_, err := openAndLoad(writeFile(t, "kernel", c.file), newRAM(t, 16*mib), Params{Cmdline: longest + "x"})
			wantError(t, err, "", fmt.Sprintf("has %d bytes, and this kernel takes %d", c.limit+1, c.limit))
		})
	}
}
