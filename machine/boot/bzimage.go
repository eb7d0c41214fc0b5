package boot

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ebb-vmm/ebb/machine/memory"
)

// Offsets into the zero page; the setup header has the same offsets in the file
// (boot.rst, "The Real-Mode Kernel Header"; zero-page.rst).
const (
	zpRSDP        = 0x070
	zpE820Count   = 0x1e8
	setupHeader   = 0x1f1
	zpBootFlag    = 0x1fe
	zpJump        = 0x200 // its second byte says how long the header is
	zpMagic       = 0x202
	zpVersion     = 0x206
	zpLoaderType  = 0x210
	zpInitrdAddr  = 0x218
	zpInitrdSize  = 0x21c
	zpCmdline     = 0x228
	zpInitrdMax   = 0x22c
	zpRelocatable = 0x234
	zpXLoadFlags  = 0x236
	zpCmdlineSize = 0x238
	zpPrefAddress = 0x258
	zpInitSize    = 0x260
	zpE820        = 0x2d0

	xlf64 = 1 << 0 // there is a 64-bit entry point at 0x200

	entry64Off = 0x200
)

// bzImage is a compressed kernel that unpacks itself.
type bzImage struct {
	header   []byte // from setupHeader to its end
	payload  int64  // file offset of the protected-mode part
	pref     uint64 // where it wants to be
	initSize uint64 // what it needs there until its own memory map is up
	initrd   uint64
	cmdline  uint32
}

func parseBzImage(k *Kernel, head []byte) (format, error) {
	le := binary.LittleEndian
	end := zpMagic + int(head[zpJump+1])
	if len(head) < 0x264 || end < 0x264 || end > zpE820 {
		return nil, errors.New("a bzImage whose header is truncated or too old; version 2.12 (Linux 3.8) or later is needed")
	}
	header := make([]byte, end-setupHeader)
	if _, err := k.file.ReadAt(header, setupHeader); err != nil {
		return nil, errors.New("a bzImage whose header is truncated")
	}
	if v := le.Uint16(head[zpVersion:]); v < 0x20c {
		return nil, fmt.Errorf("a bzImage of boot protocol %d.%02d; 2.12 (Linux 3.8) or later is needed", v>>8, v&0xff)
	}
	if le.Uint16(head[zpXLoadFlags:])&xlf64 == 0 {
		return nil, errors.New("a bzImage without a 64-bit entry point; ebb runs 64-bit kernels only")
	}
	sectors := int64(head[setupHeader])
	if sectors == 0 {
		sectors = 4
	}
	b := bzImage{
		header:   header,
		payload:  (sectors + 1) * 512,
		pref:     le.Uint64(head[zpPrefAddress:]),
		initSize: uint64(le.Uint32(head[zpInitSize:])),
		initrd:   uint64(le.Uint32(head[zpInitrdMax:])),
		cmdline:  le.Uint32(head[zpCmdlineSize:]),
	}
	// syssize is the protected-mode part in units of 16 bytes.
	want := b.payload + int64(le.Uint32(head[setupHeader+3:]))*16
	if k.size < want || b.payload+entry64Off >= k.size {
		return nil, fmt.Errorf("a truncated bzImage: its header promises %d bytes and the file has %d", want, k.size)
	}
	if b.pref < highMemory || b.pref >= memory.HoleStart {
		return nil, fmt.Errorf("a bzImage that wants to be loaded at %#x, which is not possible", b.pref)
	}
	return b, nil
}

func (bzImage) linux() bool { return true }

func (b bzImage) load(k *Kernel, ram *memory.RAM) (loaded, error) {
	n := uint64(k.size - b.payload)
	need := max(n, b.initSize)
	dst, err := kernelRAM(ram, b.pref, need)
	if err != nil {
		return loaded{}, err
	}
	if err := k.readAt(dst[:n], b.payload); err != nil {
		return loaded{}, err
	}
	return loaded{
		entry: b.pref + entry64Off, end: b.pref + need,
		initrdMax: b.initrd, cmdlineMax: b.cmdline, header: b.header,
	}, nil
}
