package blk

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
)

// Image is an open, locked disk image: a raw regular file or a block device. Its
// properties are fixed while it is open, but for its size.
type Image struct {
	path     string
	fd       int // another one after TakeOver
	readOnly bool
	direct   bool
	place    place // which file it is
	device   bool  // a block device
	size     int64 // bytes, a multiple of blockSize; atomic, because Resize changes it

	resizing sync.Mutex // one Resize at a time; taken before changing
	changing sync.Mutex // one hand-over or Close at a time
	closed   bool       // guarded by changing

	// incoming: it was opened for a migration and not taken over yet, so that nothing may be
	// read or written (handover.go).
	incoming atomic.Bool
	coherent bool // this host's page cache is the source's too; guarded by changing

	// Guarded by changing.
	owner, reserved   bool   // which of the locks this side has
	reservationShared bool   // of the reservation only a shared one (passLocks)
	left              *trace // as it was when the owner lock was given up

	blockSize    int // bytes, 512 to 4096: unit of offsets and lengths, the guest's logical block size
	physicalSize int // bytes, a power of two times blockSize: what the storage handles best
	memAlign     int // bytes: what addresses and lengths of buffers have to be multiples of for the kernel; 1 without direct I/O

	lost atomic.Bool // the host could not write what its page cache held (sync.go)

	// tokens is what the disk's limits had left when its last driver went, or elsewhere: for the next. A guest that resets
	// its disk, or itself, owes what it owed.
	tokens atomic.Pointer[aio.Tokens]

	discard bool // worth trying to deallocate
	zeroes  bool // the kernel can write zeroes to any extent the guest may name
}

// ImageOptions says how to open an image.
type ImageOptions struct {
	ReadOnly bool // open for reading only; the lock is shared with other readers
	Direct   bool // O_DIRECT: past the host's page cache
	Raw      bool // it is raw even if it begins as another format's images do (format.go)
}

// imageError is one sentence for the user, with the error behind it for errors.Is.
type imageError struct {
	sentence string
	cause    error
}

func (e *imageError) Error() string { return e.sentence }
func (e *imageError) Unwrap() error { return e.cause }

func refuse(cause error, format string, args ...any) error {
	return &imageError{fmt.Sprintf(format, args...), cause}
}

// OpenImage opens and locks an image. An error is one sentence that names the file
// and says what to do; nothing was created, changed or left locked. errors.Is sees
// fs.ErrNotExist, fs.ErrPermission, ErrLocked and the like behind it.
func OpenImage(path string, o ImageOptions) (*Image, error) {
	return newImage(path, o, (*Image).lock)
}

// newImage opens an image, locks it by the given way, and finds out what it is like.
func newImage(path string, o ImageOptions, lock func(*Image) error) (*Image, error) {
	fd, st, err := openFile(path, o)
	if err != nil {
		return nil, err
	}
	i := &Image{
		path: path, fd: fd, readOnly: o.ReadOnly, direct: o.Direct,
		device: st.Mode&unix.S_IFMT == unix.S_IFBLK, place: placeOf(st),
	}
	err = lock(i)
	// Only now: whoever held the lock might have been changing it. st is still
	// right about what can't change.
	if err == nil && !o.Raw {
		err = i.refuseFormat()
	}
	if err == nil {
		err = i.probe(st)
	}
	if err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written; gives the lock back too
		return nil, err
	}
	return i, nil
}

// openFile opens what path names, if it is something a disk can be made of.
func openFile(path string, o ImageOptions) (int, *unix.Stat_t, error) {
	// Looked at first, because opening has effects of its own on some character
	// devices, and waits on a fifo.
	var before, st unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		return -1, nil, openError(path, o, err)
	}
	if err := checkType(path, &before, o); err != nil {
		return -1, nil, err
	}
	flags := unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY // in case it was replaced since
	if o.ReadOnly {
		flags |= unix.O_RDONLY
	} else {
		flags |= unix.O_RDWR
	}
	if o.Direct {
		flags |= unix.O_DIRECT
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return -1, nil, openError(path, o, err)
	}
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Dev != before.Dev || st.Ino != before.Ino || st.Mode&unix.S_IFMT != before.Mode&unix.S_IFMT) {
		err = refuse(fs.ErrInvalid, "disk image %s was replaced while it was opened; try again", path)
	}
	if err == nil {
		// io_uring would answer EAGAIN instead of waiting for the disk.
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&unix.O_DIRECT)
	}
	if err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written
		var told *imageError
		if !errors.As(err, &told) {
			err = refuse(err, "disk image %s can't be opened (%v)", path, err)
		}
		return -1, nil, err
	}
	return fd, &st, nil
}

func checkType(path string, st *unix.Stat_t, o ImageOptions) error {
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		// Root may write to it all the same, but whoever took every write bit away meant something.
		if !o.ReadOnly && st.Mode&0o222 == 0 {
			return refuse(fs.ErrPermission, "disk image %s is write-protected (mode %#o); add readonly, or allow writing with chmod u+w", path, st.Mode&0o777)
		}
		return nil
	case unix.S_IFBLK:
		return nil
	case unix.S_IFDIR:
		kind = "a directory"
	case unix.S_IFCHR:
		kind = "a character device"
	case unix.S_IFIFO:
		kind = "a fifo"
	case unix.S_IFSOCK:
		kind = "a socket"
	default:
		kind = "a special file"
	}
	return refuse(fs.ErrInvalid, "disk image %s is %s; give a raw image file or a block device", path, kind)
}

func openError(path string, o ImageOptions, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse(err, "disk image %s does not exist; check the path, or create it with: truncate -s 1G %s", path, path)
	case !o.ReadOnly && (errors.Is(err, fs.ErrPermission) || err == unix.EROFS):
		return refuse(err, "disk image %s can't be opened for writing (%v); add readonly, or change its permissions", path, err)
	case err == unix.EINVAL && o.Direct:
		return refuse(err, "disk image %s is on a file system without direct I/O; leave out direct", path)
	case err == unix.ENXIO || err == unix.ENOMEDIUM:
		return refuse(err, "disk image %s is a device without a medium (%v); insert one or give another path", path, err)
	}
	return refuse(err, "disk image %s can't be opened (%v); check the path and its permissions", path, err)
}

// probe finds out what the image is like.
func (i *Image) probe(st *unix.Stat_t) error {
	if err := i.measure(); err != nil {
		return err
	}
	if err := i.findAlignment(i.direct); err != nil {
		return err
	}
	if i.Size()%int64(i.blockSize) != 0 {
		return i.refuseSize("%d bytes, not a multiple of the %d its storage needs for direct I/O; leave out direct, or round it up with: truncate -s %d %s", i.blockSize)
	}
	i.findTopology(st)
	i.findSupport(st)
	return nil
}

// fileSize asks for the size, by a descriptor of the image.
func (i *Image) fileSize(fd int) (int64, error) {
	if i.device {
		n, err := unix.IoctlGetInt(fd, unix.BLKGETSIZE64)
		return int64(n), err
	}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Size, err
}

// measure finds the size.
func (i *Image) measure() error {
	size, err := i.fileSize(i.fd)
	atomic.StoreInt64(&i.size, size)
	switch {
	case err != nil:
		return refuse(err, "disk image %s: its size can't be read (%v)", i.path, err)
	case size == 0 && i.device:
		return refuse(fs.ErrInvalid, "disk image %s is a device of 0 bytes; attach it to its storage first", i.path)
	case size == 0:
		return refuse(fs.ErrInvalid, "disk image %s is empty; give it a size with: truncate -s 1G %s", i.path, i.path)
	case size%sectorSize != 0:
		return i.refuseSize("%d bytes, not a multiple of %d; is it a raw image? Round it up with: truncate -s %d %s", sectorSize)
	}
	return nil
}

func (i *Image) refuseSize(format string, unit int) error {
	size := i.Size()
	up := (size/int64(unit) + 1) * int64(unit)
	return refuse(fs.ErrInvalid, "disk image %s has "+format, i.path, size, unit, up, i.path)
}

// Close gives the image and its lock back, the lock when a Resize that is under way is done.
// Preconditions: no request is in flight.
func (i *Image) Close() error {
	i.changing.Lock()
	defer i.changing.Unlock()
	i.closed = true
	return unix.Close(i.fd)
}

// Path returns the path the image was opened by.
func (i *Image) Path() string { return i.path }

// Size returns the size in bytes.
func (i *Image) Size() int64 { return atomic.LoadInt64(&i.size) }

// ReadOnly reports whether the image was opened for reading only.
func (i *Image) ReadOnly() bool { return i.readOnly }

// BlockSize returns the unit of offsets and lengths in bytes: 512, or what direct I/O needs.
func (i *Image) BlockSize() int { return i.blockSize }

func powerOfTwo(n int) bool { return n > 0 && bits.OnesCount(uint(n)) == 1 }
