package boot

import (
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/machine/boot/boottest"
)

func FuzzBzImage(f *testing.F) {
	fuzz(f, smallBzImage().Bytes(), boottest.BzImage{Payload: pattern(0x210, 1), Pref: mib, InitSize: 2 * mib, InitrdMax: 8 * mib, Cmdline: 10}.Bytes())
}

func FuzzELF(f *testing.F) {
	two := smallPVH()
	two.Segments = append(two.Segments, boottest.Segment{Vaddr: 1 << 40, Paddr: 4 * mib, Data: pattern(10, 1), Memsz: 100})
	fuzz(f, smallELF().Bytes(), smallPVH().Bytes(), two.Bytes())
}

// fuzz opens and loads files beside an initrd. A kernel that is taken lies in
// RAM above 1 MiB with its entry point, and the initrd lies behind it.
func fuzz(f *testing.F, seeds ...[]byte) {
	const size = 16 * mib
	ram := newRAM(f, size)
	dir := f.TempDir()
	kernel, ramdisk := newRewritten(f, dir, "kernel"), newRewritten(f, dir, "initrd")
	path, initrd := kernel.Name(), ramdisk.Name()
	for _, s := range seeds {
		f.Add(s, uint32(5000))
	}
	f.Fuzz(func(t *testing.T, file []byte, initrdSize uint32) {
		kernel.set(t, file, int64(len(file)))
		ramdisk.set(t, nil, int64(initrdSize))
		before := allocated()
		defer func() {
			if n := allocated() - before; n > 8*mib {
				t.Errorf("%d bytes allocated", n)
			}
		}()
		k, err := Open(path)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("error %q doesn't name the file", err)
			}
			return
		}
		defer k.Close()
		clear(ram.Bytes(zeroPageAddr, pageSize))
		e, err := k.Load(ram, Params{Initrd: initrd, Cmdline: "a"})
		if err != nil {
			return
		}
		l, err := k.format.load(k, ram)
		switch {
		case err != nil:
			t.Fatal("the second load fails:", err)
		case e.RIP < highMemory || e.RIP >= l.end || l.end > size:
			t.Errorf("entry %#x, end %#x", e.RIP, l.end)
		case l.pvh == e.LongMode:
			t.Errorf("PVH %v and long mode %v", l.pvh, e.LongMode)
		}
		at, n := read(ram, zeroPageAddr+zpInitrdAddr, 4), read(ram, zeroPageAddr+zpInitrdSize, 4)
		if l.pvh {
			m := read(ram, e.RBX+16, 8)
			at, n = read(ram, m, 8), read(ram, m+8, 8)
		}
		if at < l.end || n != uint64(initrdSize) || at+n > size || at+n-1 > l.initrdMax {
			t.Errorf("initrd %#x+%#x beside a kernel up to %#x that allows %#x", at, n, l.end, l.initrdMax)
		}
	})
}
