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
	segments []elf.Prog64 // PT_LOAD with something to load
	entry    uint64       // guest-physical
	pvh      bool
	isLinux  bool
}

func parseELF(k *Kernel) (format, error) {
	segments, h, err := programHeaders(k)
	if err != nil {
		return nil, err
	}
	img := elfImage{}
	for _, p := range segments {
		switch elf.ProgType(p.Type) {
		case elf.PT_LOAD:
			if p.Memsz == 0 {
				continue
			}
			if p.Filesz > p.Memsz || p.Memsz > math.MaxInt64 || p.Off > math.MaxInt64-p.Filesz || p.Paddr > math.MaxInt64-p.Memsz {
				return nil, errors.New("an ELF file with a segment of impossible size")
			}
			if p.Off+p.Filesz > uint64(k.size) {
				return nil, fmt.Errorf("a truncated ELF file: a segment ends at %d and the file at %d", p.Off+p.Filesz, k.size)
			}
			img.segments = append(img.segments, p)
		case elf.PT_NOTE:
			readNotes(k, p, &img)
		}
	}
	if len(img.segments) == 0 {
		return nil, errors.New("an ELF file with no segment to load")
	}
	if !img.pvh {
		img.entry = physical(img.segments, h.Entry)
	}
	for _, s := range img.segments {
		if img.entry >= s.Paddr && img.entry-s.Paddr < s.Filesz {
			return img, nil
		}
	}
	return nil, fmt.Errorf("an ELF file whose entry point %#x lies in none of its segments", img.entry)
}

// programHeaders reads what loading needs. Package elf's own reader would follow
// the section headers too, into string tables of any size.
func programHeaders(k *Kernel) ([]elf.Prog64, elf.Header64, error) {
	var h elf.Header64
	le := binary.LittleEndian
	if err := binary.Read(io.NewSectionReader(k.file, 0, k.size), le, &h); err != nil {
		return nil, h, truncated(err, "a truncated ELF file")
	}
	class, data := elf.Class(h.Ident[elf.EI_CLASS]), elf.Data(h.Ident[elf.EI_DATA])
	kind, machine := elf.Type(h.Type), elf.Machine(h.Machine)
	if class != elf.ELFCLASS64 || data != elf.ELFDATA2LSB || machine != elf.EM_X86_64 || kind != elf.ET_EXEC && kind != elf.ET_DYN {
		return nil, h, fmt.Errorf("an ELF file that is no x86-64 kernel (%v, %v, %v, %v)", class, data, machine, kind)
	}
	switch size := binary.Size(elf.Prog64{}); {
	case h.Phnum > maxSegments:
		return nil, h, fmt.Errorf("an ELF file with %d program headers; up to %d are possible", h.Phnum, maxSegments)
	case h.Phnum > 0 && int(h.Phentsize) != size:
		return nil, h, fmt.Errorf("an ELF file with program headers of %d bytes instead of %d", h.Phentsize, size)
	case h.Phoff > uint64(k.size):
		return nil, h, errors.New("a truncated ELF file: its program headers lie behind its end")
	}
	segments := make([]elf.Prog64, h.Phnum)
	if err := binary.Read(io.NewSectionReader(k.file, int64(h.Phoff), k.size-int64(h.Phoff)), le, segments); err != nil {
		return nil, h, truncated(err, "a truncated ELF file: its program headers lie behind its end")
	}
	return segments, h, nil
}

// physical translates an entry point that is given as a virtual address. Linux
// gives a physical one already.
func physical(segments []elf.Prog64, entry uint64) uint64 {
	for _, s := range segments {
		if entry >= s.Vaddr && entry-s.Vaddr < s.Memsz {
			return s.Paddr + entry - s.Vaddr
		}
	}
	return entry
}

// readNotes looks for the note that names the 32-bit entry point, and for those
// Linux leaves of its build. Damaged notes are no notes.
func readNotes(k *Kernel, p elf.Prog64, img *elfImage) {
	if p.Filesz > maxNotes {
		return
	}
	notes := make([]byte, p.Filesz)
	if _, err := k.file.ReadAt(notes, int64(p.Off)); err != nil {
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
		dst, err := kernelRAM(ram, s.Paddr, s.Memsz)
		if err != nil {
			return loaded{}, err
		}
		if err := k.readAt(dst[:s.Filesz], int64(s.Off)); err != nil {
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
