package boot

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/machine/boot/boottest"
	"github.com/ebb-vmm/ebb/machine/memory"
)

const mib = 1 << 20

// pattern returns n bytes that are nowhere zero and differ from page to page.
func pattern(n int, seed byte) []byte {
	b := make([]byte, min(n, 65521)) // a prime: no two pages begin alike
	for i := range b {
		b[i] = 1 + byte(i*7+int(seed)*31+i>>8)%255
	}
	return bytes.Repeat(b, n/max(len(b), 1)+1)[:n]
}

func newRAM(t testing.TB, size uint64) *memory.RAM {
	t.Helper()
	ram, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ram.Close)
	return ram
}

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rewritten is a file whose contents change often; it stays open, because some
// file systems write a file back when it is closed after a truncation.
type rewritten struct{ *os.File }

func newRewritten(t testing.TB, dir, name string) rewritten {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return rewritten{f}
}

func (f rewritten) set(t testing.TB, b []byte, size int64) {
	t.Helper()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string) *Kernel {
	t.Helper()
	k, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// load opens and loads a kernel file that must be good.
func load(t testing.TB, ram *memory.RAM, file []byte, p Params) Entry {
	t.Helper()
	e, err := open(t, writeFile(t, "kernel", file)).Load(ram, p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// openAndLoad does both and returns the first error.
func openAndLoad(path string, ram *memory.RAM, p Params) (Entry, error) {
	k, err := Open(path)
	if err != nil {
		return Entry{}, err
	}
	defer k.Close()
	return k.Load(ram, p)
}

// wantError checks that err is one sentence that names the file and has the words.
func wantError(t *testing.T, err error, path, words string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("no error, want one with %q", words)
	case !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), words):
		t.Errorf("error %q, want the file %s and %q in it", err, path, words)
	case strings.Contains(err.Error(), "\n") || len(err.Error()) > 300+len(path):
		t.Errorf("error %q is not one sentence", err)
	}
}

func wantBytes(t *testing.T, ram *memory.RAM, gpa uint64, want []byte, what string) {
	t.Helper()
	if got := ram.Bytes(gpa, uint64(len(want))); !bytes.Equal(got, want) {
		t.Errorf("%s at %#x: % x, want % x (the first 32)", what, gpa, got[:min(32, len(got))], want[:min(32, len(want))])
	}
}

// touched returns the first byte of every 4 KiB page that isn't all zero.
func touched(ram *memory.RAM) map[uint64]bool {
	pages := map[uint64]bool{}
	zero := make([]byte, pageSize)
	for _, r := range ram.Regions() {
		for off := uint64(0); off < uint64(len(r.Bytes)); off += pageSize {
			if !bytes.Equal(r.Bytes[off:off+pageSize], zero) {
				pages[r.GPA+off] = true
			}
		}
	}
	return pages
}

// read returns a little-endian number of 1 to 8 bytes from guest memory.
func read(ram *memory.RAM, gpa, size uint64) uint64 {
	var b [8]byte
	copy(b[:], ram.Bytes(gpa, size))
	return binary.LittleEndian.Uint64(b[:])
}

// allocated returns how many bytes of Go heap the program has ever taken.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Small kernels the tests start from.

func smallBzImage() boottest.BzImage {
	return boottest.BzImage{Payload: pattern(0x400, 1), Pref: 2 * mib}
}

func smallELF() boottest.ELF {
	return boottest.ELF{
		Entry:    2*mib + 4,
		Segments: []boottest.Segment{{Paddr: 2 * mib, Vaddr: 2 * mib, Data: pattern(64, 2), Memsz: 8192}},
	}
}

func smallPVH() boottest.ELF {
	e := smallELF()
	e.Notes = []boottest.Note{boottest.PVH(2*mib + 8)}
	return e
}
