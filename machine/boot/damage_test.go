package boot

import (
	"bytes"
	"os"
	"testing"

	"github.com/ebb-vmm/ebb/machine/boot/boottest"
)

func kernels() map[string][]byte {
	return map[string][]byte{"bzImage": smallBzImage().Bytes(), "ELF": smallELF().Bytes(), "PVH": smallPVH().Bytes()}
}

// A file cut anywhere is refused when it is opened, before a machine exists.
func TestEveryTruncation(t *testing.T) {
	for name, file := range kernels() {
		f := newRewritten(t, t.TempDir(), name)
		path := f.Name()
		for n := range len(file) {
			f.set(t, file[:n], int64(n))
			k, err := Open(path)
			if err == nil {
				k.Close()
				t.Errorf("%s cut to %d of %d bytes: no error", name, n, len(file))
				continue
			}
			wantError(t, err, path, "")
		}
	}
}

// A file that shrinks between Open and Load.
func TestTruncationBehindOurBack(t *testing.T) {
	for name, file := range kernels() {
		path := writeFile(t, name, file)
		k := open(t, path)
		if err := os.Truncate(path, int64(len(file)-1)); err != nil {
			t.Fatal(err)
		}
		_, err := k.Load(newRAM(t, 16*mib), Params{})
		wantError(t, err, path, "truncated")
	}
}

// Every field of the headers, at every width, with the values that break sums
// and comparisons: an error or a kernel that lies where it may, never a panic
// nor memory by the megabyte.
func TestDamagedFields(t *testing.T) {
	ram := newRAM(t, 16*mib)
	values := [][]byte{{0}, {1}, {0x7f}, {0x80}, {0xff}}
	for _, width := range []int{2, 4, 8} {
		for _, last := range []byte{0x00, 0x7f, 0x80, 0xff} {
			v := bytes.Repeat([]byte{0xff}, width)
			v[width-1] = last
			values = append(values, v)
		}
	}
	before := allocated()
	tried := 0
	for name, file := range kernels() {
		f := newRewritten(t, t.TempDir(), name)
		path := f.Name()
		headers := map[string][2]int{
			"bzImage": {0x1f1, 0x26c}, "ELF": {0, boottest.ELFHeader + boottest.ELFProgram},
			"PVH": {0, boottest.ELFHeader + 2*boottest.ELFProgram + 20},
		}[name]
		for at := headers[0]; at < headers[1]; at++ {
			for _, v := range values {
				damaged := bytes.Clone(file)
				copy(damaged[at:], v)
				f.set(t, damaged, int64(len(damaged)))
				tried++
				e, err := openAndLoad(path, ram, Params{})
				if err != nil {
					wantError(t, err, path, "")
				} else if ram.Bytes(e.RIP, 1) == nil || e.RIP < mib {
					t.Errorf("%s with % x at %#x: entry %#x", name, v, at, e.RIP)
				}
			}
		}
	}
	if per := (allocated() - before) / uint64(tried); per > 64<<10 {
		t.Errorf("%d bytes allocated per file", per)
	}
}
