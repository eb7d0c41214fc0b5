package guest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// bzImage makes the parts of a bzImage that ExtractVmlinux looks at.
func bzImage(payload []byte, size int) []byte {
	const sects = 3
	image := make([]byte, (sects+1)*512+64)
	image[offSetupSects] = sects
	copy(image[offMagic:], "HdrS")
	le := binary.LittleEndian
	le.PutUint16(image[offVersion:], 0x20f)
	le.PutUint32(image[offPayloadOffset:], 64)
	le.PutUint32(image[offPayloadLength:], uint32(len(payload)+4))
	image = append(image, payload...)
	image = le.AppendUint32(image, uint32(size))
	return append(image, "code after the payload"...)
}

func TestExtractVmlinux(t *testing.T) {
	vmlinux := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel text "), 100_000)...)
	for name, compress := range map[string]func(io.Writer) io.WriteCloser{
		"lz4": func(w io.Writer) io.WriteCloser {
			z := lz4.NewWriter(w)
			if err := z.Apply(lz4.LegacyOption(true)); err != nil {
				t.Fatal(err)
			}
			return z
		},
		"zstd": func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			z := compress(&b)
			if _, err := z.Write(vmlinux); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			image := bzImage(b.Bytes(), len(vmlinux))
			got, err := ExtractVmlinux(image)
			if err != nil || !bytes.Equal(got, vmlinux) {
				t.Fatalf("%d bytes instead of %d, %v", len(got), len(vmlinux), err)
			}
			if _, err := ExtractVmlinux(image[:len(image)-100]); err == nil || !strings.Contains(err.Error(), "truncated") {
				t.Errorf("truncated: %v", err)
			}
			if _, err := ExtractVmlinux(bzImage(b.Bytes()[:b.Len()/2], len(vmlinux))); err == nil {
				t.Error("half a payload was accepted")
			}
		})
	}
}

func TestExtractVmlinuxRefuses(t *testing.T) {
	for want, image := range map[string][]byte{
		"not a bzImage":       []byte("MZ"),
		"unknown compression": bzImage([]byte("plain text"), 10),
		"more than any":       bzImage([]byte("plain text"), 1<<30),
	} {
		if _, err := ExtractVmlinux(image); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
