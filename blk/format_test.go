package blk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// formatted makes an image of n bytes that begins as one of a format does.
func formatted(t *testing.T, n, at int, magic string) string {
	t.Helper()
	head := make([]byte, n)
	copy(head[at:], magic)
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, head, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A guest would make a file system in what is none of raw's.
func TestOtherFormatsAreRefused(t *testing.T) {
	for _, f := range []struct {
		name  string
		size  int
		at    int
		magic string
	}{
		{"qcow2", 196616, 0, "QFI\xfb\x00\x00\x00\x03"}, // of no raw image's size
		{"qcow2", 65536, 0, "QFI\xfb\x00\x00\x00\x01"},
		{"QED", 65536, 0, "QED\x00"},
		{"VMDK", 65536, 0, "KDMV\x01\x00\x00\x00"},
		{"VMDK", 65536, 0, "COWD"},
		{"VMDK", 345, 0, "# Disk DescriptorFile\nversion=1\n"},
		{"VHDX", 8 << 20, 0, "vhdxfile"},
		{"VHD", 4096, 0, "conectix"},
		{"VDI", 65536, 0, "<<< Oracle VM VirtualBox Disk Image >>>\n" + strings.Repeat("\x00", 24) + "\x7f\x10\xda\xbe"},
	} {
		path := formatted(t, f.size, f.at, f.magic)
		for _, o := range []ImageOptions{{}, {Direct: true}, {ReadOnly: true}} {
			i, err := OpenImage(path, o)
			if err == nil {
				i.Close() //nolint:errcheck // it should not be open at all
				t.Errorf("%s, %+v: no error", f.name, o)
				continue
			}
			for _, want := range []string{path, f.name + " image", "qemu-img convert -O raw " + path + " " + path + ".raw", "format=raw"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %+v: %q does not say %q", f.name, o, err, want)
				}
			}
		}
	}
	open(t, formatted(t, 4096, 4096-512, "conectix"), ImageOptions{}) // a VHD of fixed size
}

// A guest may have written anything to its disk. Who insists has it, and a migration, which has
// asked at the source, does not refuse it.
func TestFormatIsInsistedOn(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		path := formatted(t, 65536, 0, "QFI\xfb")
		o := ImageOptions{ReadOnly: readOnly, Raw: true}
		source := open(t, path, o)
		o.Raw = false
		dest := incoming(t, path, o)
		if err := dest.CheckIncoming(source.Identity()); err != nil {
			t.Error(err)
		}
	}
}
