package boot

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ebb-vmm/ebb/machine/memory"
)

const (
	notePhys32Entry = 18 // XEN_ELFNOTE_PHYS32_ENTRY
	maxNotes        = 1 << 20
	maxSegments     = 64
)

// elfImage is an ELF executable: a vmlinux, or a program of its own.
type elfImage struct {
	segments []elf.ProgHeader // PT_LOAD with something to load
	entry    uint64           // guest-physical
	pvh      bool
	isLinux  bool
}

func parseELF(k *Kernel) (format, error) {
	f, err := elf.NewFile(k.file)
	if err != nil {
		return nil, fmt.Errorf("a damaged ELF file: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, fmt.Errorf("an ELF file that is no x86-64 kernel (%v, %v, %v)", f.Class, f.Machine, f.Type)
	}
	img := elfImage{}
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_LOAD:
			if p.Memsz == 0 {
				continue
			}
			if p.Filesz > p.Memsz || p.Off > math.MaxInt64-p.Filesz || p.Paddr > math.MaxInt64-p.Memsz {
				return nil, errors.New("an ELF file with a segment of impossible size")
			}
			if p.Off+p.Filesz > uint64(k.size) {
				return nil, fmt.Errorf("a truncated ELF file: a segment ends at %d and the file at %d", p.Off+p.Filesz, k.size)
			}
			img.segments = append(img.segments, p.ProgHeader)
		case elf.PT_NOTE:
			readNotes(p, &img)
		}
	}
	if len(img.segments) == 0 || len(img.segments) > maxSegments {
		return nil, fmt.Errorf("an ELF file with %d segments to load; 1 to %d is possible", len(img.segments), maxSegments)
	}
	if !img.pvh {
		img.entry = physical(img.segments, f.Entry)
	}
	for _, s := range img.segments {
		if img.entry >= s.Paddr && img.entry-s.Paddr < s.Filesz {
			return img, nil
		}
	}
	return nil, fmt.Errorf("an ELF file whose entry point %#x lies in none of its segments", img.entry)
}

// physical translates an entry point that is given as a virtual address. Linux
// gives a physical one already.
func physical(segments []elf.ProgHeader, entry uint64) uint64 {
	for _, s := range segments {
		if entry >= s.Vaddr && entry-s.Vaddr < s.Memsz {
			return s.Paddr + entry - s.Vaddr
		}
	}
	return entry
}

// readNotes looks for the note that names the 32-bit entry point, and for those
// Linux leaves of its build. Damaged notes are no notes.
func readNotes(p *elf.Prog, img *elfImage) {
	if p.Filesz > maxNotes {
		return
	}
	notes := make([]byte, p.Filesz)
	if _, err := io.ReadFull(p.Open(), notes); err != nil {
		return
	}
	le := binary.LittleEndian
	for len(notes) >= 12 {
		nameSize, descSize, kind := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
		rest := notes[12:]
		descOff := (nameSize + 3) &^ 3
		if descOff+descSize > uint64(len(rest)) {
			return
		}
		name, desc := string(rest[:nameSize]), rest[descOff:descOff+descSize]
		switch {
		case name == "Linux\x00":
			img.isLinux = true
		case name == "Xen\x00" && kind == notePhys32Entry && len(desc) == 4:
			img.entry, img.pvh = uint64(le.Uint32(desc)), true
		case name == "Xen\x00" && kind == notePhys32Entry && len(desc) == 8:
			img.entry, img.pvh = le.Uint64(desc), true
		}
		notes = rest[min(descOff+(descSize+3)&^3, uint64(len(rest))):]
	}
}

func (e elfImage) linux() bool { return e.isLinux }

func (e elfImage) load(k *Kernel, ram *memory.RAM) (loaded, error) {
	l := loaded{entry: e.entry, pvh: e.pvh, initrdMax: math.MaxUint32, cmdlineMax: cmdlineMax, header: plainHeader()}
	for _, s := range e.segments {
		if s.Paddr < highMemory {
			return loaded{}, fmt.Errorf("a segment is to be loaded at %#x; below 1 MiB there is no room", s.Paddr)
		}
		if ram.Bytes(s.Paddr, s.Memsz) == nil {
			return loaded{}, fmt.Errorf("it needs %d MiB of memory and the guest has %d MiB; give it more --memory", (s.Paddr+s.Memsz+1<<20-1)>>20, ram.Size()>>20)
		}
		if err := k.readAt(ram, s.Paddr, int64(s.Off), s.Filesz); err != nil {
			return loaded{}, err
		}
		l.end = max(l.end, s.Paddr+s.Memsz)
	}
	return l, nil
}

// plainHeader is a setup header for a kernel that brings none.
func plainHeader() []byte {
	h := make([]byte, 0x264-setupHeader)
	binary.LittleEndian.PutUint16(h[zpBootFlag-setupHeader:], 0xaa55)
	copy(h[zpMagic-setupHeader:], "HdrS")
	binary.LittleEndian.PutUint16(h[zpVersion-setupHeader:], 0x20f)
	return h
}
