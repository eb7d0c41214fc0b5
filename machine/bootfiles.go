package machine

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/machine/boot"
)

// A guest that resets boots its kernel again, also after it has moved, unless its user wants none of that. So the files for
// that go with it, and are kept in memory at the destination.

// BootFile is one of them.
type BootFile struct {
	Name    string // bootKernel or bootInitrd
	Size    int64  // bytes
	Content io.ReadCloser
}

const (
	bootKernel = "kernel"
	bootInitrd = "initrd"

	maxBootFile = 1 << 30 // bytes
)

// BootFiles opens the files that the guest boots from. The caller closes them. A guest that doesn't boot again (Config.NoReboot)
// needs none; one whose files are not there any more, or that came here without, moves all the same: then there are none, either.
func (o *Outgoing) BootFiles() []BootFile {
	m := o.m
	if m.kernel == nil || m.cfg.NoReboot {
		return nil
	}
	files := []BootFile{{bootKernel, m.kernel.Size(), io.NopCloser(m.kernel.Content())}}
	if m.cfg.Initrd == "" {
		return files
	}
	f, err := os.Open(m.cfg.Initrd)
	var info os.FileInfo
	if err == nil {
		if info, err = f.Stat(); err == nil && (info.Size() == 0 || info.Size() > maxBootFile) {
			err = fmt.Errorf("%s has %d bytes by now", m.cfg.Initrd, info.Size())
		}
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		m.cfg.Log.Warn("the guest moves without its initrd, and won't boot again there", "err", err)
		return nil
	}
	return append(files, BootFile{bootInitrd, info.Size(), f})
}

// bootFiles are those that have come, as descriptors of files in memory.
type bootFiles map[string]*os.File

// File returns where a file is to be written that comes from the source.
func (in *Incoming) File(name string, size int64) (io.Writer, error) {
	switch {
	case name != bootKernel && name != bootInitrd || in.files[name] != nil:
		return nil, fmt.Errorf("a file %.40q comes, which is not one a guest boots from", name)
	case size <= 0 || size > maxBootFile:
		return nil, fmt.Errorf("%s has %d bytes; at most %d are possible", name, size, maxBootFile)
	}
	fd, err := unix.MemfdCreate("ebb-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory for %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if in.files == nil {
		in.files = bootFiles{}
	}
	in.files[name] = f
	return f, nil
}

func (b bootFiles) path(name string) string {
	if f := b[name]; f != nil {
		return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	return ""
}

// adopt has the machine boot from them when its guest resets.
func (b bootFiles) adopt(m *Machine) error {
	if b[bootKernel] == nil {
		return nil
	}
	k, err := boot.Open(b.path(bootKernel))
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kernel, m.cfg.Initrd = k, b.path(bootInitrd)
	return nil
}

func (b bootFiles) close() (err error) {
	for _, f := range b {
		err = errors.Join(err, f.Close())
	}
	return err
}
