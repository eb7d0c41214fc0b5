package guest

import (
	"fmt"
	"io"
	"path"
)

// Archive writes an initramfs: cpio in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
// Paths are absolute or relative to the root, folders above a file are made by themselves, and the same input gives the
// same bytes: owner root, time 0. The first error sticks and is returned by Close.
type Archive struct {
	w    io.Writer
	err  error
	ino  uint32
	dirs map[string]bool
	off  int64
}

// File types of a newc header's mode.
const (
	typeDir  = 0o040000
	typeChar = 0o020000
	typeReg  = 0o100000
	typeLink = 0o120000
)

// NewArchive starts an archive on w.
func NewArchive(w io.Writer) *Archive {
	return &Archive{w: w, dirs: map[string]bool{".": true}}
}

// Dir makes a folder, and those above it. One that is there already is left as it is.
func (a *Archive) Dir(name string, perm uint32) {
	name = clean(name)
	if a.dirs[name] {
		return
	}
	a.Dir(path.Dir(name), 0o755)
	a.dirs[name] = true
	a.entry(name, typeDir|perm, 2, nil, 0, 0)
}

// File makes a regular file. data must be smaller than 4 GiB.
func (a *Archive) File(name string, perm uint32, data []byte) {
	a.Dir(path.Dir(clean(name)), 0o755)
	a.entry(clean(name), typeReg|perm, 1, data, 0, 0)
}

// Symlink makes a symbolic link.
func (a *Archive) Symlink(name, target string) {
	a.Dir(path.Dir(clean(name)), 0o755)
	a.entry(clean(name), typeLink|0o777, 1, []byte(target), 0, 0)
}

// CharDevice makes a character device node.
func (a *Archive) CharDevice(name string, perm, major, minor uint32) {
	a.Dir(path.Dir(clean(name)), 0o755)
	a.entry(clean(name), typeChar|perm, 1, nil, major, minor)
}

// Close ends the archive, padded to 512 bytes so that another can follow.
func (a *Archive) Close() error {
	a.ino = 0 // so the trailer's is 0 or 1, as everywhere
	a.entry("TRAILER!!!", 0, 1, nil, 0, 0)
	a.pad(512)
	return a.err
}

func (a *Archive) entry(name string, mode, links uint32, data []byte, major, minor uint32) {
	if int64(len(data)) > 0xffffffff {
		a.err = fmt.Errorf("%s is too big for an initramfs (4 GiB)", name)
	}
	a.ino++
	// magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
	a.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.ino, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0))
	a.write(append([]byte(name), 0))
	a.pad(4)
	a.write(data)
	a.pad(4)
}

func (a *Archive) write(p []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(p)
	a.off += int64(n)
	a.err = err
}

func (a *Archive) pad(align int64) {
	a.write(make([]byte, (align-a.off%align)%align))
}

// clean makes a path relative to the root, which is ".".
func clean(name string) string {
	if name = path.Clean("/" + name); name == "/" {
		return "."
	}
	return name[1:]
}
