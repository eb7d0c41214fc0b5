package guest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Offsets in the setup header of a bzImage (Documentation/arch/x86/boot.rst).
const (
	offSetupSects    = 0x1f1 // u8: real-mode sectors of 512 bytes after the boot sector; 0 means 4
	offMagic         = 0x202 // "HdrS"
	offVersion       = 0x206 // u16
	offPayloadOffset = 0x248 // u32: from the start of the protected-mode code
	offPayloadLength = 0x24c // u32: compressed kernel with its trailing size word
	minVersion       = 0x208 // the first with a payload
	maxVmlinux       = 256 << 20
)

// ExtractVmlinux returns the uncompressed kernel, an ELF file, that a bzImage carries. It knows the compressions of
// Debian's kernels: LZ4 (legacy frame), ZSTD, gzip.
func ExtractVmlinux(image []byte) ([]byte, error) {
	if len(image) < offPayloadLength+4 || string(image[offMagic:offMagic+4]) != "HdrS" {
		return nil, errors.New("not a bzImage: no boot protocol header")
	}
	le := binary.LittleEndian
	if v := le.Uint16(image[offVersion:]); v < minVersion {
		return nil, fmt.Errorf("boot protocol %#x has no payload fields (%#x or later needed)", v, minVersion)
	}
	sects := int(image[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	start := uint64(sects+1)*512 + uint64(le.Uint32(image[offPayloadOffset:]))
	end := start + uint64(le.Uint32(image[offPayloadLength:]))
	if end > uint64(len(image)) || end-start < 8 {
		return nil, fmt.Errorf("truncated bzImage: its payload ends at %d, the file at %d", end, len(image))
	}
	payload, size := image[start:end-4], le.Uint32(image[end-4:end])
	if size > maxVmlinux {
		return nil, fmt.Errorf("the payload claims %d bytes, more than any kernel", size)
	}
	r, err := decompressor(payload)
	if err != nil {
		return nil, err
	}
	vmlinux := make([]byte, size)
	if _, err := io.ReadFull(r, vmlinux); err != nil {
		return nil, fmt.Errorf("uncompress the payload: %w", err)
	}
	if !bytes.HasPrefix(vmlinux, []byte("\x7fELF")) {
		return nil, errors.New("the payload is not an ELF file")
	}
	return vmlinux, nil
}

// decompressor chooses by the first bytes.
func decompressor(payload []byte) (io.Reader, error) {
	r := bytes.NewReader(payload)
	switch {
	case bytes.HasPrefix(payload, []byte{0x02, 0x21, 0x4c, 0x18}):
		return lz4.NewReader(r), nil
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxVmlinux))
		if err != nil {
			return nil, err
		}
		return d, nil
	case bytes.HasPrefix(payload, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	}
	return nil, fmt.Errorf("unknown compression: the payload starts with % x", payload[:4])
}
