package boot

import (
	"slices"
	"testing"

	"github.com/ebb-vmm/ebb/machine/memory"
)

// translate walks the page tables as a processor does.
func translate(ram *memory.RAM, cr3, addr uint64) (uint64, bool) {
	const present, writable, large, frame = 1, 2, 1 << 7, 0x000ffffffffff000
	table := cr3
	for shift := 39; ; shift -= 9 {
		e := read(ram, table+8*(addr>>shift&511), 8)
		switch {
		case e&present == 0 || e&writable == 0:
			return 0, false
		case shift == 12 || e&large != 0:
			below := uint64(1)<<shift - 1
			return e&frame&^below | addr&below, true
		}
		table = e & frame
	}
}

func TestLongModeIsIdentityMapped(t *testing.T) {
	ram := newRAM(t, 16*mib)
	e := load(t, ram, smallBzImage().Bytes(), Params{})
	for _, addr := range []uint64{0, 1, 0x7000, mib, 2*mib - 1, 2 * mib, 1<<30 - 1, 1 << 30, 3<<30 + 12345, 0xfee00000, 1<<32 - 1} {
		if got, ok := translate(ram, e.CR3, addr); !ok || got != addr {
			t.Errorf("%#x maps to %#x, %v", addr, got, ok)
		}
	}
	for _, addr := range []uint64{1 << 32, 1 << 39, 1<<47 - 1} {
		if got, ok := translate(ram, e.CR3, addr); ok {
			t.Errorf("%#x maps to %#x, want nothing", addr, got)
		}
	}
}

// The descriptors must agree with the segments the vCPU is given.
func TestDescriptorTables(t *testing.T) {
	for name, c := range map[string]struct {
		file []byte
		code uint64
	}{"long mode": {smallBzImage().Bytes(), 0x00af9b000000ffff}, "PVH": {smallPVH().Bytes(), 0x00cf9b000000ffff}} {
		ram := newRAM(t, 16*mib)
		e := load(t, ram, c.file, Params{})
		want := []uint64{0, 0, c.code, 0x00cf93000000ffff, 0x00008b0000000067, 0}
		var got []uint64
		for i := range uint64(GDTLimit+1) / 8 {
			got = append(got, read(ram, e.GDT+8*i, 8))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: GDT %#x, want %#x", name, got, want)
		}
	}
}

func TestMemoryMap(t *testing.T) {
	const low, hole, high = 0x9fc00, memory.HoleStart, memory.HoleEnd
	ecam := memory.Reserve{GPA: 0xe0000000, Size: 256 * mib}
	start := []e820Entry{{0, low, e820RAM}, {low, mib - low, e820Reserved}}
	for _, c := range []struct {
		size uint64
		want []e820Entry
	}{
		{16 * mib, []e820Entry{{mib, 15 * mib, e820RAM}, {ecam.GPA, ecam.Size, e820Reserved}}},
		{hole, []e820Entry{{mib, hole - mib, e820RAM}, {ecam.GPA, ecam.Size, e820Reserved}}},
		{hole + 2*mib, []e820Entry{{mib, hole - mib, e820RAM}, {ecam.GPA, ecam.Size, e820Reserved}, {high, 2 * mib, e820RAM}}},
	} {
		ram := newRAM(t, c.size)
		load(t, ram, smallBzImage().Bytes(), Params{Reserved: []memory.Reserve{ecam}})
		want := append(slices.Clone(start), c.want...)
		if n := read(ram, zeroPageAddr+zpE820Count, 1); n != uint64(len(want)) {
			t.Fatalf("%d MiB: %d entries, want %d", c.size/mib, n, len(want))
		}
		for i, w := range want {
			at := uint64(zeroPageAddr + zpE820 + 20*i)
			if got := (e820Entry{read(ram, at, 8), read(ram, at+8, 8), uint32(read(ram, at+16, 4))}); got != w {
				t.Errorf("%d MiB, entry %d: %+v, want %+v", c.size/mib, i, got, w)
			}
		}
	}
}

func TestCode(t *testing.T) {
	ram := newRAM(t, memory.Alignment)
	code := []byte{0xe6, 0xf4, 0xf4}
	e := Code(ram, code)
	wantBytes(t, ram, e.RIP, code, "code")
	if got, ok := translate(ram, e.CR3, e.RIP); !e.LongMode || !ok || got != e.RIP {
		t.Errorf("entry %+v maps to %#x, %v", e, got, ok)
	}
}
