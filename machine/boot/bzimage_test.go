package boot

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/ebb-vmm/ebb/machine/boot/boottest"
	"github.com/ebb-vmm/ebb/machine/memory"
)

func TestBzImage(t *testing.T) {
	ram := newRAM(t, 64*mib)
	k := boottest.BzImage{Payload: pattern(0x1230, 1), Pref: 16 * mib, InitSize: 1 * mib, InitrdMax: 0x7fffffff}
	file := k.Bytes()
	initrd := pattern(5000, 3)
	const cmdline = "console=ttyS0 quiet"
	e := load(t, ram, file, Params{Initrd: writeFile(t, "initrd", initrd), Cmdline: cmdline, RSDP: ACPIAddr + 0x40})

	if want := (Entry{LongMode: true, RIP: 16*mib + 0x200, RSI: zeroPageAddr, CR3: pageTableAddr, GDT: gdtAddr}); e != want {
		t.Errorf("entry %+v, want %+v", e, want)
	}
	wantBytes(t, ram, 16*mib, k.Payload, "payload")
	wantBytes(t, ram, cmdlineAddr, append([]byte(cmdline), 0), "command line")
	const initrdAddr = 64*mib - 8192 // as high as it can be, on a page
	wantBytes(t, ram, initrdAddr, initrd, "initrd")
	for _, f := range []struct {
		off, size, want uint64
		name            string
	}{
		{0x070, 8, ACPIAddr + 0x40, "acpi_rsdp_addr"},
		{0x0c0, 4, 0, "ext_ramdisk_image"},
		{0x0c4, 4, 0, "ext_ramdisk_size"},
		{0x0c8, 4, 0, "ext_cmd_line_ptr"},
		{0x1e8, 1, 3, "e820_entries"},
		{0x1ef, 1, 0, "sentinel"},
		{0x1fe, 2, 0xaa55, "boot_flag"},
		{0x202, 4, 0x53726448, "header"},
		{0x206, 2, 0x20f, "version"},
		{0x210, 1, 0xff, "type_of_loader"},
		{0x211, 1, 1, "loadflags"},
		{0x218, 4, initrdAddr, "ramdisk_image"},
		{0x21c, 4, 5000, "ramdisk_size"},
		{0x228, 4, cmdlineAddr, "cmd_line_ptr"},
		{0x22c, 4, 0x7fffffff, "initrd_addr_max"},
		{0x258, 8, 16 * mib, "pref_address"},
		{0x260, 4, 1 * mib, "init_size"},
		{0x268, 4, 0x9abcdef0, "the header's last field"},
	} {
		if got := read(ram, zeroPageAddr+f.off, f.size); got != f.want {
			t.Errorf("zero page: %s = %#x, want %#x", f.name, got, f.want)
		}
	}
	// Of the file only the setup header belongs there, not its boot sector.
	if got := ram.Bytes(zeroPageAddr+0x26c, 0x2d0-0x26c); !bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("zero page behind the header: % x", got)
	}

	want := map[uint64]bool{0: true, zeroPageAddr: true, cmdlineAddr: true, 16 * mib: true, 16*mib + 4096: true,
		initrdAddr: true, initrdAddr + 4096: true}
	for i := range uint64(6) {
		want[pageTableAddr+i*pageSize] = true
	}
	for page := range touched(ram) {
		if !want[page] {
			t.Errorf("the page at %#x was written", page)
		}
	}
}

func TestBzImageWithoutInitrd(t *testing.T) {
	ram := newRAM(t, 16*mib)
	load(t, ram, smallBzImage().Bytes(), Params{})
	if at, n := read(ram, zeroPageAddr+0x218, 4), read(ram, zeroPageAddr+0x21c, 4); at != 0 || n != 0 {
		t.Errorf("ramdisk %#x+%#x, want none", at, n)
	}
}

// Setup code of any size lies between the header and the payload; 0 sectors mean
// 4 (boot.rst).
func TestBzImageSetupSectors(t *testing.T) {
	for sectors, off := range map[byte]int{0: 5 * 512, 1: 2 * 512, 4: 5 * 512, 27: 28 * 512, 255: 256 * 512} {
		ram := newRAM(t, 16*mib)
		k := smallBzImage()
		file := k.Bytes()
		file[boottest.SetupSects] = sectors
		file = append(file[:boottest.PayloadOff], make([]byte, off-boottest.PayloadOff)...)
		load(t, ram, append(file, k.Payload...), Params{})
		wantBytes(t, ram, 2*mib, k.Payload, "payload")
	}
}

func TestBzImageThatIsNone(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		damage func(b []byte)
		words  string
	}{
		"protocol 2.11":       {func(b []byte) { le.PutUint16(b[boottest.Version:], 0x20b) }, "protocol 2.11"},
		"no 64-bit entry":     {func(b []byte) { le.PutUint16(b[boottest.XLoadFlags:], 0xfffe) }, "64-bit"},
		"short header":        {func(b []byte) { b[boottest.HeaderEnd] = 0x61 }, "header"},
		"no header":           {func(b []byte) { b[boottest.HeaderEnd] = 0 }, "header"},
		"header over e820":    {func(b []byte) { b[boottest.HeaderEnd] = 0xcf }, "header"},
		"longest header":      {func(b []byte) { b[boottest.HeaderEnd] = 0xff }, "header"},
		"no magic":            {func(b []byte) { b[0x202] = 'h' }, "not a kernel"},
		"promises more":       {func(b []byte) { le.PutUint32(b[boottest.Syssize:], 0x41) }, "truncated"},
		"promises 64 GiB":     {func(b []byte) { le.PutUint32(b[boottest.Syssize:], 0xffffffff) }, "truncated"},
		"payload behind end":  {func(b []byte) { b[boottest.SetupSects] = 255; le.PutUint32(b[boottest.Syssize:], 0) }, "truncated"},
		"no entry in payload": {func(b []byte) { b[boottest.SetupSects] = 2; le.PutUint32(b[boottest.Syssize:], 0) }, "truncated"},
		"at 0":                {func(b []byte) { le.PutUint64(b[boottest.PrefAddress:], 0) }, "not possible"},
		"below 1 MiB":         {func(b []byte) { le.PutUint64(b[boottest.PrefAddress:], mib-1) }, "not possible"},
		"in the hole":         {func(b []byte) { le.PutUint64(b[boottest.PrefAddress:], memory.HoleStart) }, "not possible"},
		"above 4 GiB":         {func(b []byte) { le.PutUint64(b[boottest.PrefAddress:], memory.HoleEnd) }, "not possible"},
		"at the very end":     {func(b []byte) { le.PutUint64(b[boottest.PrefAddress:], ^uint64(0)) }, "not possible"},
	} {
		t.Run(name, func(t *testing.T) {
			k := smallBzImage()
			if name == "no entry in payload" {
				k.Payload = k.Payload[:0x200+512]
			}
			file := k.Bytes()
			c.damage(file)
			path := writeFile(t, "vmlinuz", file)
			k2, err := Open(path)
			if err == nil {
				k2.Close()
			}
			wantError(t, err, path, c.words)
		})
	}
}

// What the kernel needs must be RAM, all of it, before a byte is written.
func TestBzImageThatDoesNotFit(t *testing.T) {
	for name, c := range map[string]struct {
		pref     uint64
		initSize uint32
		ram      uint64
		words    string
	}{
		"payload":            {16 * mib, 0, 16 * mib, "17 MiB"},
		"init_size":          {2 * mib, 14*mib + 1, 16 * mib, "more --memory"},
		"init_size huge":     {2 * mib, 0xffffffff, 16 * mib, "between 1 MiB and 3 GiB"},
		"into the hole":      {memory.HoleStart - 4096, 4097, memory.HoleStart + 64*mib, "between 1 MiB and 3 GiB"},
		"last page, too big": {memory.HoleStart - 512, 0, memory.HoleStart, "between 1 MiB and 3 GiB"},
	} {
		t.Run(name, func(t *testing.T) {
			k := smallBzImage()
			k.Pref, k.InitSize = c.pref, c.initSize
			path := writeFile(t, "vmlinuz", k.Bytes())
			_, err := openAndLoad(path, newRAM(t, c.ram), Params{})
			wantError(t, err, path, c.words)
		})
	}
	k := smallBzImage()
	k.InitSize = 14 * mib // to the last byte
	load(t, newRAM(t, 16*mib), k.Bytes(), Params{})
}
