package boottest

import "encoding/binary"

// BzImage describes a bzImage. The zero value of a field is what a kernel of
// boot protocol 2.15 would have.
type BzImage struct {
	Payload   []byte // the protected-mode part; its 64-bit entry point is at 0x200
	Pref      uint64 // preferred address, 0: 16 MiB
	InitSize  uint32 // 0: as long as Payload
	InitrdMax uint32 // 0: 0x7fffffff
	Cmdline   uint32 // longest command line, 0: 2047
}

// Fields of the setup header, by file offset (boot.rst).
const (
	SetupSects  = 0x1f1
	Syssize     = 0x1f4
	HeaderEnd   = 0x201 // one byte, counted from 0x202
	Version     = 0x206
	InitrdMax   = 0x22c
	XLoadFlags  = 0x236
	CmdlineSize = 0x238
	PrefAddress = 0x258
	InitSize    = 0x260

	// PayloadOff is where Bytes puts the payload: behind the boot sector and one
	// sector of setup code.
	PayloadOff = 1024
)

// Bytes returns the file.
func (k BzImage) Bytes() []byte {
	le := binary.LittleEndian
	or := func(v, zero uint64) uint64 {
		if v == 0 {
			return zero
		}
		return v
	}
	b := make([]byte, PayloadOff, PayloadOff+len(k.Payload))
	b[SetupSects] = 1
	le.PutUint32(b[Syssize:], uint32(len(k.Payload)/16))
	le.PutUint16(b[0x1fe:], 0xaa55)
	b[0x200], b[HeaderEnd] = 0xeb, 0x6a // the header ends at 0x26c
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[Version:], 0x20f)
	b[0x211] = 1 // LOADED_HIGH
	le.PutUint32(b[InitrdMax:], uint32(or(uint64(k.InitrdMax), 0x7fffffff)))
	b[0x234] = 1 // relocatable
	le.PutUint16(b[XLoadFlags:], 1)
	le.PutUint32(b[CmdlineSize:], uint32(or(uint64(k.Cmdline), 2047)))
	le.PutUint64(b[PrefAddress:], or(k.Pref, 16<<20))
	le.PutUint32(b[InitSize:], uint32(or(uint64(k.InitSize), uint64(len(k.Payload)))))
	le.PutUint32(b[0x264:], 0x12345678) // handover offset and kernel_info offset: the last of the header,
	le.PutUint32(b[0x268:], 0x9abcdef0) // to see that it is copied whole
	return append(b, k.Payload...)
}
