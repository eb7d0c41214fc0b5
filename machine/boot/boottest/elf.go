package boottest

import "encoding/binary"

// Segment is a PT_LOAD program header and its bytes.
type Segment struct {
	Paddr, Vaddr uint64
	Data         []byte
	Memsz        uint64 // 0: as long as Data
}

// Note is one entry of the PT_NOTE segment.
type Note struct {
	Name string // without the zero byte that ends it
	Type uint32
	Desc []byte
}

// PVH returns the note that names the 32-bit entry point (XEN_ELFNOTE_PHYS32_ENTRY).
func PVH(entry uint32) Note {
	return Note{Name: "Xen", Type: 18, Desc: binary.LittleEndian.AppendUint32(nil, entry)}
}

// ELF describes a 64-bit x86 executable.
type ELF struct {
	Entry    uint64
	Segments []Segment
	Notes    []Note // none: no PT_NOTE segment
}

// Where Bytes puts the fields tests damage.
const (
	ELFEntry    = 0x18 // in the file header
	ELFPhoff    = 0x20
	ELFPhnum    = 0x38
	ELFHeader   = 64 // size, and offset of the first program header
	ELFProgram  = 56 // size of a program header
	ProgType    = 0  // in a program header
	ProgOffset  = 8
	ProgPaddr   = 24
	ProgFilesz  = 32
	ProgMemsz   = 40
	loadSegment = 1
	noteSegment = 4
)

// Bytes returns the file: headers (those of Segments first), notes, data.
func (e ELF) Bytes() []byte {
	le := binary.LittleEndian
	var notes []byte
	for _, n := range e.Notes {
		notes = le.AppendUint32(notes, uint32(len(n.Name)+1))
		notes = le.AppendUint32(notes, uint32(len(n.Desc)))
		notes = le.AppendUint32(notes, n.Type)
		notes = pad(append(append(notes, n.Name...), 0))
		notes = pad(append(notes, n.Desc...))
	}
	headers := len(e.Segments)
	if notes != nil {
		headers++
	}
	b := make([]byte, ELFHeader, 4096)
	copy(b, "\x7fELF\x02\x01\x01") // 64-bit, little-endian, version 1
	le.PutUint16(b[0x10:], 2)      // ET_EXEC
	le.PutUint16(b[0x12:], 62)     // EM_X86_64
	le.PutUint32(b[0x14:], 1)
	le.PutUint64(b[ELFEntry:], e.Entry)
	le.PutUint64(b[ELFPhoff:], ELFHeader)
	le.PutUint16(b[0x34:], ELFHeader)
	le.PutUint16(b[0x36:], ELFProgram)
	le.PutUint16(b[ELFPhnum:], uint16(headers))

	off := uint64(ELFHeader + headers*ELFProgram + len(notes))
	for _, s := range e.Segments {
		size := uint64(len(s.Data))
		b = program(b, loadSegment, off, s.Vaddr, s.Paddr, size, max(s.Memsz, size))
		off += size
	}
	if notes != nil {
		size := uint64(len(notes))
		b = program(b, noteSegment, uint64(ELFHeader+headers*ELFProgram), 0, 0, size, size)
	}
	b = append(b, notes...)
	for _, s := range e.Segments {
		b = append(b, s.Data...)
	}
	return b
}

func program(b []byte, kind uint32, off, vaddr, paddr, filesz, memsz uint64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, kind)
	b = le.AppendUint32(b, 7) // readable, writable, executable
	for _, v := range []uint64{off, vaddr, paddr, filesz, memsz, 1} {
		b = le.AppendUint64(b, v)
	}
	return b
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
