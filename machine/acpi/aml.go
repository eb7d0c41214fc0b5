package acpi

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
)

// This file encodes the few AML terms the DSDT needs (ACPI 6.5, section 20.2).
// Every function returns the bytes of one term, so that terms nest as they do in
// ASL.

const (
	opName        = 0x08
	opScope       = 0x10
	opBuffer      = 0x11
	opPackage     = 0x12
	opMethod      = 0x14
	opExtended    = 0x5b
	opLocal0      = 0x60
	opArg0        = 0x68
	opStore       = 0x70
	opAnd         = 0x7b
	opOr          = 0x7d
	opDWordField  = 0x8a
	opNot         = 0x92
	opEqual       = 0x93
	opIf          = 0xa0
	opElse        = 0xa1
	opReturn      = 0xa4
	opExtDevice   = 0x82
	prefixByte    = 0x0a
	prefixWord    = 0x0b
	prefixDWord   = 0x0c
	endTag        = 0x79
	smallIO       = 0x47
	smallIRQ      = 0x22
	largeMemory32 = 0x86
	largeDWord    = 0x87
	largeWord     = 0x88
)

// Resource types of an address space descriptor (6.4.3.5).
const (
	rangeMemory = 0
	rangeIO     = 1
	rangeBus    = 2
)

func join(terms ...[]byte) (out []byte) {
	for _, t := range terms {
		out = append(out, t...)
	}
	return out
}

// sized puts the package length (20.2.4), which counts itself, before body.
func sized(body []byte) []byte {
	n := len(body)
	switch {
	case n+1 < 1<<6:
		return append([]byte{byte(n + 1)}, body...)
	case n+2 < 1<<12:
		n += 2
		return append([]byte{1<<6 | byte(n&0xf), byte(n >> 4)}, body...)
	default:
		n += 3
		return append([]byte{2<<6 | byte(n&0xf), byte(n >> 4), byte(n >> 12)}, body...)
	}
}

func integer(v uint32) []byte {
	switch {
	case v <= 1:
		return []byte{byte(v)} // ZeroOp, OneOp
	case v <= 0xff:
		return []byte{prefixByte, byte(v)}
	case v <= 0xffff:
		return binary.LittleEndian.AppendUint16([]byte{prefixWord}, uint16(v))
	default:
		return binary.LittleEndian.AppendUint32([]byte{prefixDWord}, v)
	}
}

// eisaID is a seven-character PNP id such as "PNP0A08", compressed (19.3.4).
func eisaID(id string) []byte {
	digit := func(c byte) uint32 {
		if c >= 'A' {
			return uint32(c-'A') + 10
		}
		return uint32(c - '0')
	}
	v := uint32(id[0]-0x40)<<26 | uint32(id[1]-0x40)<<21 | uint32(id[2]-0x40)<<16 |
		digit(id[3])<<12 | digit(id[4])<<8 | digit(id[5])<<4 | digit(id[6])
	return binary.BigEndian.AppendUint32([]byte{prefixDWord}, v)
}

func text(s string) []byte { return join([]byte{0x0d}, []byte(s), []byte{0}) }

func name(n string, value []byte) []byte { return join([]byte{opName}, []byte(n), value) }

// scope opens a scope at top level, so the path is relative to the root.
func scope(path string, terms ...[]byte) []byte {
	return join([]byte{opScope}, sized(join([]byte(path), join(terms...))))
}

func device(n string, terms ...[]byte) []byte {
	return join([]byte{opExtended, opExtDevice}, sized(join([]byte(n), join(terms...))))
}

// method takes n arguments, and is not serialized (20.2.5.2).
func method(n string, args uint8, terms ...[]byte) []byte {
	return join([]byte{opMethod}, sized(join([]byte(n), []byte{args}, join(terms...))))
}

// Terms of methods (20.2.5.3, 20.2.5.4). A target is a name, a local or an argument.
func local(n byte) []byte            { return []byte{opLocal0 + n} }
func arg(n byte) []byte              { return []byte{opArg0 + n} }
func equal(a, b []byte) []byte       { return join([]byte{opEqual}, a, b) }
func not(a []byte) []byte            { return join([]byte{opNot}, a) }
func store(from, to []byte) []byte   { return join([]byte{opStore}, from, to) }
func and(a, b, target []byte) []byte { return join([]byte{opAnd}, a, b, target) }
func or(a, b, target []byte) []byte  { return join([]byte{opOr}, a, b, target) }
func returns(a []byte) []byte        { return join([]byte{opReturn}, a) }

func when(condition []byte, terms ...[]byte) []byte {
	return join([]byte{opIf}, sized(join(condition, join(terms...))))
}

func otherwise(terms ...[]byte) []byte { return join([]byte{opElse}, sized(join(terms...))) }

// dwordField names 32 bits of a buffer, at a byte offset.
func dwordField(buffer []byte, off uint32, n string) []byte {
	return join([]byte{opDWordField}, buffer, integer(off), []byte(n))
}

// uuid is a buffer with a UUID as ToUUID makes it (19.6.142): of the five groups the
// first three are little-endian.
func uuid(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		panic("acpi: bad UUID " + s)
	}
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return join([]byte{opBuffer}, sized(join(integer(16), b)))
}

func packageOf(elements ...[]byte) []byte {
	return join([]byte{opPackage}, sized(join([]byte{byte(len(elements))}, join(elements...))))
}

// resources is a buffer of resource descriptors, as _CRS returns.
func resources(descriptors ...[]byte) []byte {
	body := join(join(descriptors...), []byte{endTag, 0})
	return join([]byte{opBuffer}, sized(join(integer(uint32(len(body))), body)))
}

// ports is a fixed range of I/O ports (6.4.2.5).
func ports(first uint16, n uint8) []byte {
	b := []byte{smallIO, 1 /* decodes 16 bits */}
	b = binary.LittleEndian.AppendUint16(b, first)
	b = binary.LittleEndian.AppendUint16(b, first)
	return append(b, 1, n)
}

// irq is an edge-triggered, active-high ISA interrupt (6.4.2.1).
func irq(n uint) []byte {
	return binary.LittleEndian.AppendUint16([]byte{smallIRQ}, 1<<n)
}

// memory32 is a fixed range of memory (6.4.3.4).
func memory32(base, size uint32) []byte {
	b := []byte{largeMemory32, 9, 0, 1 /* writable */}
	b = binary.LittleEndian.AppendUint32(b, base)
	return binary.LittleEndian.AppendUint32(b, size)
}

const (
	// produced ranges are passed on to the bus behind the bridge; both ends are fixed.
	produced = 1<<2 | 1<<3
)

// wordRange is what a bridge passes on of a 16-bit space, first to last (6.4.3.5.3).
func wordRange(kind uint8, first, last uint16) []byte {
	flags := byte(0)
	if kind == rangeIO {
		flags = 3 // the entire range, ISA and non-ISA
	}
	b := []byte{largeWord, 13, 0, kind, produced, flags}
	for _, v := range []uint16{0, first, last, 0, last - first + 1} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

// dwordMemory is a window of uncached, writable memory that a bridge passes on (6.4.3.5.2).
func dwordMemory(first, last uint32) []byte {
	b := []byte{largeDWord, 23, 0, rangeMemory, produced, 1}
	for _, v := range []uint32{0, first, last, 0, last - first + 1} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
