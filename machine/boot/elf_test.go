package boot

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/ebb-vmm/ebb/machine/boot/boottest"
	"github.com/ebb-vmm/ebb/machine/memory"
)

// segments as of a vmlinux: linked high, loaded low, a gap between them, bss.
func linkedHigh() boottest.ELF {
	const text, data = 0xffffffff81000000, 0xffffffff81400000
	return boottest.ELF{
		Entry: text + 0x10,
		Segments: []boottest.Segment{
			{Vaddr: text, Paddr: 4 * mib, Data: pattern(0x1100, 1)},
			{Vaddr: data, Paddr: 8 * mib, Data: pattern(0x200, 2), Memsz: 1 * mib},
			{Vaddr: 0, Paddr: 12 * mib, Memsz: 4096}, // bss alone
			{Vaddr: 1, Paddr: 3},                     // empty: what it says doesn't matter
		},
	}
}

func TestELF64(t *testing.T) {
	for name, entry := range map[string]uint64{"virtual entry": 0xffffffff81000010, "physical entry": 4*mib + 0x10} {
		t.Run(name, func(t *testing.T) {
			ram := newRAM(t, 16*mib)
			k := linkedHigh()
			k.Entry = entry
			e := load(t, ram, k.Bytes(), Params{Cmdline: "hello", RSDP: 0xe0000})
			if want := (Entry{LongMode: true, RIP: 4*mib + 0x10, RSI: zeroPageAddr, CR3: pageTableAddr, GDT: gdtAddr}); e != want {
				t.Errorf("entry %+v, want %+v", e, want)
			}
			for _, s := range k.Segments[:3] {
				wantBytes(t, ram, s.Paddr, s.Data, "segment")
				bss := make([]byte, max(s.Memsz, uint64(len(s.Data)))-uint64(len(s.Data)))
				wantBytes(t, ram, s.Paddr+uint64(len(s.Data)), bss, "bss")
			}
			wantBytes(t, ram, cmdlineAddr, []byte("hello\x00"), "command line")
			// A header it did not bring, good enough for a kernel that looks.
			for _, f := range [][3]uint64{ // offset, size, value
				{0x070, 8, 0xe0000}, {0x1e8, 1, 3}, {0x1fe, 2, 0xaa55}, {0x202, 4, 0x53726448}, {0x206, 2, 0x020f}, {0x210, 1, 0xff}, {0x228, 4, cmdlineAddr},
			} {
				if got := read(ram, zeroPageAddr+f[0], f[1]); got != f[2] {
					t.Errorf("zero page at %#x: %#x, want %#x", f[0], got, f[2])
				}
			}
		})
	}
}

func TestPVH(t *testing.T) {
	ram := newRAM(t, 16*mib)
	k := linkedHigh()
	k.Notes = []boottest.Note{
		{Name: "Linux", Type: 1, Desc: []byte{1, 2, 3}}, // of odd length
		{Name: "Xen", Type: 5, Desc: []byte("linux\x00")},
		{Name: "GNU", Type: 18, Desc: []byte{1, 2, 3, 4}}, // the number, of somebody else
		boottest.PVH(4*mib + 0x40),
	}
	initrd := pattern(100, 3)
	e := load(t, ram, k.Bytes(), Params{
		Initrd: writeFile(t, "initrd", initrd), Cmdline: "hello", RSDP: 0xe1230,
		Reserved: []memory.Reserve{{GPA: 0xe0000000, Size: 0x10000000}},
	})
	if want := (Entry{RIP: 4*mib + 0x40, RBX: startInfoAddr, GDT: gdtAddr}); e != want {
		t.Errorf("entry %+v, want %+v", e, want)
	}
	// struct hvm_start_info
	info := func(off, size uint64) uint64 { return read(ram, e.RBX+off, size) }
	modules, memmap := info(16, 8), info(40, 8)
	for _, f := range []struct {
		off, size, want uint64
		name            string
	}{
		{0, 4, 0x336ec578, "magic"}, {4, 4, 1, "version"}, {8, 4, 0, "flags"}, {12, 4, 1, "nr_modules"},
		{24, 8, cmdlineAddr, "cmdline_paddr"}, {32, 8, 0xe1230, "rsdp_paddr"}, {48, 4, 4, "memmap_entries"}, {52, 4, 0, "reserved"},
	} {
		if got := info(f.off, f.size); got != f.want {
			t.Errorf("start info: %s = %#x, want %#x", f.name, got, f.want)
		}
	}
	// struct hvm_modlist_entry
	const initrdAddr = 16*mib - 4096
	for off, want := range map[uint64]uint64{0: initrdAddr, 8: 100, 16: 0, 24: 0} {
		if got := read(ram, modules+off, 8); got != want {
			t.Errorf("module at %d: %#x, want %#x", off, got, want)
		}
	}
	wantBytes(t, ram, initrdAddr, initrd, "initrd")
	// struct hvm_memmap_table_entry
	for i, want := range [][3]uint64{{0, 0x9fc00, 1}, {0x9fc00, mib - 0x9fc00, 2}, {mib, 15 * mib, 1}, {0xe0000000, 0x10000000, 2}} {
		at := memmap + uint64(24*i)
		if got := [3]uint64{read(ram, at, 8), read(ram, at+8, 8), read(ram, at+16, 8)}; got != want {
			t.Errorf("memory map, entry %d: %#x, want %#x", i, got, want)
		}
	}
}

func TestPVHWithoutInitrd(t *testing.T) {
	ram := newRAM(t, 16*mib)
	e := load(t, ram, smallPVH().Bytes(), Params{})
	if n, list := read(ram, e.RBX+12, 4), read(ram, e.RBX+16, 8); n != 0 || list != 0 {
		t.Errorf("%d modules at %#x, want none", n, list)
	}
}

func TestPVHNoteOf64Bits(t *testing.T) {
	k := smallELF()
	k.Notes = []boottest.Note{{Name: "Xen", Type: 18, Desc: binary.LittleEndian.AppendUint64(nil, 2*mib+12)}}
	if e := load(t, newRAM(t, 16*mib), k.Bytes(), Params{}); e.LongMode || e.RIP != 2*mib+12 {
		t.Errorf("entry %+v", e)
	}
}

func TestLinuxIsRecognised(t *testing.T) {
	noted := smallPVH()
	noted.Notes = append(noted.Notes, boottest.Note{Name: "Linux", Type: 0x100})
	for name, c := range map[string]struct {
		file []byte
		want bool
	}{"bzImage": {smallBzImage().Bytes(), true}, "vmlinux": {noted.Bytes(), true}, "other ELF": {smallPVH().Bytes(), false}} {
		k := open(t, writeFile(t, "kernel", c.file))
		if got := k.Linux(); got != c.want {
			t.Errorf("%s: Linux() = %v", name, got)
		}
	}
}

func TestELFThatIsNone(t *testing.T) {
	le := binary.LittleEndian
	const phdr = boottest.ELFHeader
	put := func(off int, v uint64) func([]byte) { return func(b []byte) { le.PutUint64(b[off:], v) } }
	for name, c := range map[string]struct {
		damage func(b []byte)
		words  string
	}{
		"32-bit":                  {func(b []byte) { b[4] = 1 }, "no x86-64 kernel (ELFCLASS32"},
		"no class":                {func(b []byte) { b[4] = 9 }, "no x86-64 kernel"},
		"big-endian":              {func(b []byte) { b[5] = 2 }, "no x86-64 kernel"},
		"arm64":                   {func(b []byte) { le.PutUint16(b[0x12:], 183) }, "EM_AARCH64"},
		"object file":             {func(b []byte) { le.PutUint16(b[0x10:], 1) }, "ET_REL"},
		"no program headers":      {func(b []byte) { le.PutUint16(b[boottest.ELFPhnum:], 0) }, "no segment"},
		"65 program headers":      {func(b []byte) { le.PutUint16(b[boottest.ELFPhnum:], 65) }, "65 program headers"},
		"65535 program headers":   {func(b []byte) { le.PutUint16(b[boottest.ELFPhnum:], 0xffff) }, "65535 program headers"},
		"64 program headers":      {func(b []byte) { le.PutUint16(b[boottest.ELFPhnum:], 64) }, "truncated"},
		"small program headers":   {func(b []byte) { le.PutUint16(b[0x36:], 32) }, "32 bytes"},
		"program headers far":     {put(boottest.ELFPhoff, 1<<40), "truncated"},
		"program headers farther": {put(boottest.ELFPhoff, ^uint64(0)), "truncated"},
		"program headers at -56":  {put(boottest.ELFPhoff, ^uint64(55)), "truncated"},
		"no load segment":         {func(b []byte) { b[phdr+boottest.ProgType] = 6 }, "no segment"},
		"empty load segment":      {func(b []byte) { clear(b[phdr+boottest.ProgFilesz : phdr+boottest.ProgMemsz+8]) }, "no segment"},
		"file larger than memory": {put(phdr+boottest.ProgMemsz, 63), "impossible size"},
		"offset overflows":        {put(phdr+boottest.ProgOffset, 1<<63-1), "impossible size"},
		"offset negative":         {put(phdr+boottest.ProgOffset, ^uint64(0)), "impossible size"},
		"offset behind the end":   {put(phdr+boottest.ProgOffset, 1<<40), "truncated"},
		"address overflows":       {put(phdr+boottest.ProgPaddr, ^uint64(0)-100), "impossible size"},
		"memory overflows":        {put(phdr+boottest.ProgMemsz, ^uint64(0)), "impossible size"},
		"both overflow": {func(b []byte) {
			for i := range 16 {
				b[phdr+boottest.ProgFilesz+i] = 0xff
			}
		}, "impossible size"},
		"entry nowhere": {put(boottest.ELFEntry, 0x1234), "entry point 0x1234"},
		"entry in bss":  {put(boottest.ELFEntry, 2*mib+64), "entry point 0x200040"},
		"entry at -1":   {put(boottest.ELFEntry, ^uint64(0)), "entry point"},
	} {
		t.Run(name, func(t *testing.T) {
			file := smallELF().Bytes()
			c.damage(file)
			path := writeFile(t, "vmlinux", file)
			k, err := Open(path)
			if err == nil {
				k.Close()
			}
			wantError(t, err, path, c.words)
		})
	}
}

func TestELFThatDoesNotFit(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		paddr, memsz, ram uint64
		words             string
	}{
		"at 0":                 {0, 4096, 16 * mib, "between 1 MiB and 3 GiB"},
		"below 1 MiB":          {mib - 1, 4096, 16 * mib, "between 1 MiB and 3 GiB"},
		"behind RAM":           {16 * mib, 4096, 16 * mib, "17 MiB of memory and the guest has 16 MiB"},
		"longer than RAM":      {mib, 15*mib + 1, 16 * mib, "more --memory"},
		"in the hole":          {memory.HoleStart, 4096, memory.HoleStart + 64*mib, "between 1 MiB and 3 GiB"},
		"into the hole":        {memory.HoleStart - 4096, 4097, memory.HoleStart + 64*mib, "between 1 MiB and 3 GiB"},
		"above 4 GiB":          {memory.HoleEnd, 4096, memory.HoleStart + 64*mib, "between 1 MiB and 3 GiB"},
		"memory of 2^62 bytes": {mib, 1 << 62, 16 * mib, "between 1 MiB and 3 GiB"},
	} {
		t.Run(name, func(t *testing.T) {
			file := smallELF().Bytes()
			le.PutUint64(file[boottest.ELFEntry:], c.paddr)
			le.PutUint64(file[boottest.ELFHeader+16:], c.paddr) // vaddr
			le.PutUint64(file[boottest.ELFHeader+boottest.ProgPaddr:], c.paddr)
			le.PutUint64(file[boottest.ELFHeader+boottest.ProgMemsz:], c.memsz)
			path := writeFile(t, "vmlinux", file)
			_, err := openAndLoad(path, newRAM(t, c.ram), Params{})
			wantError(t, err, path, c.words)
		})
	}
}

// Damaged notes are no notes: the kernel boots by its 64-bit entry point.
func TestDamagedNotes(t *testing.T) {
	le := binary.LittleEndian
	good := smallPVH().Bytes()
	at := bytes.Index(good, []byte("Xen\x00")) - 12
	noteHeader := boottest.ELFHeader + boottest.ELFProgram
	for name, damage := range map[string]func(b []byte) []byte{
		"name too long":        func(b []byte) []byte { le.PutUint32(b[at:], 0xffffffff); return b },
		"name overflows":       func(b []byte) []byte { le.PutUint32(b[at:], 0xfffffffd); return b },
		"name empty":           func(b []byte) []byte { le.PutUint32(b[at:], 0); return b },
		"name without its end": func(b []byte) []byte { le.PutUint32(b[at:], 3); return b },
		"content too long":     func(b []byte) []byte { le.PutUint32(b[at+4:], 0xffffffff); return b },
		"content empty":        func(b []byte) []byte { le.PutUint32(b[at+4:], 0); return b },
		"content of 2 bytes":   func(b []byte) []byte { le.PutUint32(b[at+4:], 2); return b },
		"other type":           func(b []byte) []byte { le.PutUint32(b[at+8:], 17); return b },
		"other name":           func(b []byte) []byte { b[at+12] = 'x'; return b },
		"segment cut":          func(b []byte) []byte { le.PutUint64(b[noteHeader+boottest.ProgFilesz:], 19); return b },
		"segment of 8 bytes":   func(b []byte) []byte { le.PutUint64(b[noteHeader+boottest.ProgFilesz:], 8); return b },
		"segment empty":        func(b []byte) []byte { le.PutUint64(b[noteHeader+boottest.ProgFilesz:], 0); return b },
		"segment huge":         func(b []byte) []byte { le.PutUint64(b[noteHeader+boottest.ProgFilesz:], 1<<62); return b },
		"segment behind end":   func(b []byte) []byte { le.PutUint64(b[noteHeader+boottest.ProgOffset:], 1<<40); return b },
		"segment at -1":        func(b []byte) []byte { le.PutUint64(b[noteHeader+boottest.ProgOffset:], ^uint64(0)); return b },
	} {
		t.Run(name, func(t *testing.T) {
			e := load(t, newRAM(t, 16*mib), damage(bytes.Clone(good)), Params{})
			if !e.LongMode || e.RIP != 2*mib+4 {
				t.Errorf("entry %+v, want the 64-bit one", e)
			}
		})
	}
	// A good note that names a bad place is not ignored.
	bad := bytes.Clone(good)
	le.PutUint32(bad[at+16:], 0x7fff0000)
	path := writeFile(t, "vmlinux", bad)
	_, err := openAndLoad(path, newRAM(t, 16*mib), Params{})
	wantError(t, err, path, "entry point 0x7fff0000")
}

// Section headers are not looked at, however large what they name: here a string
// table of 1 TiB in a sparse file.
func TestSectionsAreNotRead(t *testing.T) {
	const table = 1 << 40
	file := smallPVH().Bytes()
	le := binary.LittleEndian
	le.PutUint64(file[0x28:], uint64(len(file))) // e_shoff
	le.PutUint16(file[0x3a:], 64)
	le.PutUint16(file[0x3c:], 1)
	section := make([]byte, 64)
	section[4] = 3 // SHT_STRTAB
	le.PutUint64(section[24:], uint64(len(file)))
	le.PutUint64(section[32:], table)
	path := writeFile(t, "vmlinux", append(file, section...))
	if err := os.Truncate(path, table+4096); err != nil {
		t.Skip("no sparse file of 1 TiB here:", err)
	}
	ram := newRAM(t, 16*mib)
	before := allocated()
	if _, err := openAndLoad(path, ram, Params{}); err != nil {
		t.Error(err)
	}
	if n := allocated() - before; n > mib {
		t.Errorf("%d bytes allocated", n)
	}
}
