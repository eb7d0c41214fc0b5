package blk

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// writeImage makes a file of n bytes.
func writeImage(t *testing.T, n int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string, o ImageOptions) *Image {
	t.Helper()
	img, err := OpenImage(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() }) //nolint:errcheck // may be closed already
	return img
}

func TestOpenImage(t *testing.T) {
	path := writeImage(t, 1<<20)
	img := open(t, path, ImageOptions{})
	if img.Size() != 1<<20 || img.Path() != path || img.ReadOnly() || img.BlockSize() != 512 || img.memAlign != 1 {
		t.Errorf("%+v", img)
	}
	if p := img.physicalSize; p%img.blockSize != 0 || p < 512 || p&(p-1) != 0 {
		t.Errorf("physical block size %d", p)
	}
	fl, err := unix.FcntlInt(uintptr(img.fd), unix.F_GETFL, 0)
	if err != nil || fl&unix.O_NONBLOCK != 0 || fl&unix.O_ACCMODE != unix.O_RDWR {
		t.Errorf("flags %#x, %v", fl, err)
	}
	if fd, _ := unix.FcntlInt(uintptr(img.fd), unix.F_GETFD, 0); fd&unix.FD_CLOEXEC == 0 {
		t.Error("image is inherited by children")
	}
}

// One sentence that names the file and says what to do; nothing created or changed.
func TestOpenImageRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, n int64, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	protected := file("protected", 4096, 0o444)
	for _, c := range []struct {
		name string
		path string
		o    ImageOptions
		want []string
		is   error
	}{
		{"missing", filepath.Join(dir, "missing"), ImageOptions{}, []string{"does not exist", "truncate -s"}, fs.ErrNotExist},
		{"missing, read-only", filepath.Join(dir, "missing"), ImageOptions{ReadOnly: true}, []string{"does not exist"}, fs.ErrNotExist},
		{"dangling link", dangling, ImageOptions{}, []string{"does not exist"}, fs.ErrNotExist},
		{"below a file", filepath.Join(protected, "x"), ImageOptions{}, []string{"can't be opened"}, unix.ENOTDIR},
		{"directory", dir, ImageOptions{}, []string{"is a directory", "raw image file"}, fs.ErrInvalid},
		{"character device", "/dev/null", ImageOptions{}, []string{"is a character device"}, fs.ErrInvalid},
		{"fifo", fifo, ImageOptions{}, []string{"is a fifo"}, fs.ErrInvalid},
		{"fifo, read-only", fifo, ImageOptions{ReadOnly: true}, []string{"is a fifo"}, fs.ErrInvalid},
		{"empty", file("empty", 0, 0o600), ImageOptions{}, []string{"is empty", "truncate -s"}, fs.ErrInvalid},
		{"odd size", file("odd", 1000, 0o600), ImageOptions{}, []string{"1000 bytes", "not a multiple of 512", "truncate -s 1024 " + dir}, fs.ErrInvalid},
		{"odd size, read-only", file("odd2", 511, 0o600), ImageOptions{ReadOnly: true}, []string{"truncate -s 512 "}, fs.ErrInvalid},
		{"write-protected", protected, ImageOptions{}, []string{"write-protected", "add readonly"}, fs.ErrPermission},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := listing(t, dir)
			img, err := OpenImage(c.path, c.o)
			if err == nil {
				img.Close() //nolint:errcheck // it should not be open at all
				t.Fatal("no error")
			}
			for _, w := range append(c.want, c.path) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if strings.Contains(err.Error(), "\n") || !errors.Is(err, c.is) {
				t.Errorf("%q is not %v", err, c.is)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("directory changed from\n%s\nto\n%s", before, after)
			}
		})
	}
	open(t, protected, ImageOptions{ReadOnly: true})
}

// listing describes a directory: names, sizes, modes, times.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(fs.FormatFileInfo(info) + "\n")
	}
	return b.String()
}

// Refused images are not left open or locked.
func TestRefusedImageIsReleased(t *testing.T) {
	path := writeImage(t, 1000)
	before := openFiles(t)
	if _, err := OpenImage(path, ImageOptions{}); err == nil {
		t.Fatal("no error")
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d open files, %d before", after, before)
	}
	if err := os.Truncate(path, 1024); err != nil {
		t.Fatal(err)
	}
	open(t, path, ImageOptions{})
}

func openFiles(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// The same image, in one process: writers exclude everybody, readers only writers;
// a name doesn't matter.
func TestLocks(t *testing.T) {
	path := writeImage(t, 1<<20)
	hard, soft := path+".hard", path+".soft"
	if err := errors.Join(os.Link(path, hard), os.Symlink(path, soft)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		first, second bool // read-only
		ok            bool
	}{{false, false, false}, {false, true, false}, {true, false, false}, {true, true, true}} {
		for _, name := range []string{path, hard, soft} {
			img := open(t, path, ImageOptions{ReadOnly: c.first})
			other, err := OpenImage(name, ImageOptions{ReadOnly: c.second})
			if (err == nil) != c.ok {
				t.Errorf("%+v by %s: %v", c, name, err)
			}
			if err == nil {
				other.Close() //nolint:errcheck // a file that was only read
			} else if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "another process") {
				t.Errorf("%q", err)
			}
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(t, path, ImageOptions{}) // all gone with their files
}

// Every opener needs both bytes: whoever holds only one of them keeps others out.
func TestLockNeedsBothBytes(t *testing.T) {
	path := writeImage(t, 1<<20)
	for _, at := range []int64{lockOwner, lockReservation} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		lk := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenImage(path, ImageOptions{}); !errors.Is(err, ErrLocked) {
			t.Errorf("byte %#x held: %v", at, err)
		}
		f.Close() //nolint:errcheck // gives the lock back
	}
	open(t, path, ImageOptions{})
}

func TestLockAcrossProcesses(t *testing.T) {
	path := writeImage(t, 1<<20)
	for _, readOnly := range []bool{false, true} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "EBB_TEST_HOLD_IMAGE="+path)
		if readOnly {
			cmd.Env = append(cmd.Env, "EBB_TEST_HOLD_READONLY=1")
		}
		stdin, err1 := cmd.StdinPipe()
		stdout, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "held\n" {
			t.Fatalf("child says %q, %v", line, err)
		}
		if _, err := OpenImage(path, ImageOptions{}); !errors.Is(err, ErrLocked) {
			t.Errorf("child read-only %v, we read-write: %v", readOnly, err)
		}
		img, err := OpenImage(path, ImageOptions{ReadOnly: true})
		if (err == nil) != readOnly {
			t.Errorf("child read-only %v, we read-only: %v", readOnly, err)
		}
		if err == nil {
			img.Close() //nolint:errcheck // only read
		}
		stdin.Close() //nolint:errcheck // the child ends
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		open(t, path, ImageOptions{}).Close() //nolint:errcheck // the lock went with the child
	}
}

// Direct I/O: the alignment is the kernel's, and it is enough.
func TestDirectAlignment(t *testing.T) {
	img := open(t, writeImage(t, 1<<20), ImageOptions{Direct: true})
	if !powerOfTwo(img.memAlign) || !powerOfTwo(img.blockSize) || img.blockSize < 512 || img.blockSize > 4096 {
		t.Fatalf("block size %d, memory alignment %d", img.blockSize, img.memAlign)
	}
	buf, err := unix.Mmap(-1, 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(buf) //nolint:errcheck // our own
	p := buf[img.memAlign:][:img.blockSize]
	if n, err := unix.Pread(img.fd, p, int64(img.blockSize)); n != img.blockSize || err != nil {
		t.Errorf("read with that alignment: %d, %v", n, err)
	}
	// Probing finds something that works too.
	mem, off, err := img.probeAlign()
	if err != nil || mem < img.memAlign || off < img.blockSize && img.blockSize > 512 {
		t.Errorf("probing: %d, %d, %v; the kernel says %d, %d", mem, off, err, img.memAlign, img.blockSize)
	}
}

// An image whose last block is not a whole one of its storage.
func TestDirectSize(t *testing.T) {
	img := &Image{path: "/images/x.img", size: 4608, blockSize: 4096}
	err := img.refuseSize("%d bytes, not a multiple of the %d its storage needs for direct I/O; leave out direct, or round it up with: truncate -s %d %s", img.blockSize)
	if !strings.Contains(err.Error(), "4608 bytes, not a multiple of the 4096") || !strings.Contains(err.Error(), "truncate -s 8192 /images/x.img") {
		t.Error(err)
	}
}

// What the kernel refuses, as a sentence (root may open anything, so here without a file).
func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		o    ImageOptions
		want string
	}{
		{unix.EACCES, ImageOptions{}, "add readonly"},
		{unix.EROFS, ImageOptions{}, "add readonly"},
		{unix.EPERM, ImageOptions{}, "add readonly"},
		{unix.EACCES, ImageOptions{ReadOnly: true}, "check the path and its permissions"},
		{unix.EINVAL, ImageOptions{Direct: true}, "leave out direct"},
		{unix.ENXIO, ImageOptions{}, "without a medium"},
		{unix.ELOOP, ImageOptions{}, "check the path"},
	} {
		err := openError("/images/x.img", c.o, c.err)
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "/images/x.img") || !errors.Is(err, c.err) {
			t.Errorf("%v: %q", c.err, err)
		}
	}
}
