package blk

import (
	"bytes"
	"io/fs"

	"golang.org/x/sys/unix"
)

// formats are what images that are not raw begin with, behind so many bytes. A VHD of fixed size isn't among them: that
// is raw, with a footer.
var formats = []struct {
	name  string
	at    int
	magic string
}{
	{"qcow2", 0, "QFI\xfb"}, // and what came before it
	{"QED", 0, "QED\x00"},
	{"VMDK", 0, "KDMV"},
	{"VMDK", 0, "COWD"},
	{"VMDK", 0, "# Disk DescriptorFile"}, // a text that names the files
	{"VHDX", 0, "vhdxfile"},
	{"VHD", 0, "conectix"},            // dynamic: the footer is at its start, too
	{"VDI", 0x40, "\x7f\x10\xda\xbe"}, // behind a text that programs choose
}

// refuseFormat refuses a file that begins as an image of another format does: a guest that takes it for an empty disk
// destroys what is in it. What can't be read is not refused.
func (i *Image) refuseFormat() error {
	if i.device {
		return nil
	}
	// Mapped, because direct I/O asks for an alignment.
	head, err := unix.Mmap(-1, 0, maxBlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(head) //nolint:errcheck // our own mapping
	if n, err := unix.Pread(i.fd, head, 0); err != nil || n == 0 {
		return nil
	}
	for _, f := range formats {
		if bytes.HasPrefix(head[f.at:], []byte(f.magic)) {
			return refuse(fs.ErrInvalid, "disk image %s begins as a %s image does, and ebb takes raw ones only; give it one made with: qemu-img convert -O raw %s %s.raw, "+
				"or add format=raw to insist that this is raw", i.path, f.name, i.path, i.path)
		}
	}
	return nil
}
