package blk

import (
	"io/fs"
	"math"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// truncate is a variable for a test with storage that doesn't answer.
var truncate = unix.Ftruncate

// Resize gives the image another size in bytes. A file that is smaller grows, with a
// hole at its end; nothing ever gets smaller, because a guest may use all it knows
// of. A block device is resized by whoever has it: Resize only looks how large it
// is, and size, if not 0, is what it should be. An error is one sentence, and then
// the image has its old size. Any goroutine; I/O may go on, and a second call waits.
// Devices follow with Device.UpdateCapacity. Close doesn't wait for it: storage may never answer.
func (i *Image) Resize(size uint64) error {
	i.resizing.Lock()
	defer i.resizing.Unlock()
	fd, err := i.duplicate()
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	now := i.Size()
	have, err := i.fileSize(fd)
	if err != nil {
		return refuse(err, "disk image %s: its size can't be read (%v)", i.path, err)
	}
	if i.device {
		if size == 0 {
			size = uint64(have)
		}
		if size != uint64(have) {
			return refuse(fs.ErrInvalid, "disk image %s is a block device of %d bytes; resize it where it comes from first, then give that size", i.path, have)
		}
	}
	switch {
	case size > math.MaxInt64:
		return refuse(fs.ErrInvalid, "disk image %s can't have %d bytes; the most is %d", i.path, size, int64(math.MaxInt64))
	case size%uint64(i.blockSize) != 0:
		return refuse(fs.ErrInvalid, "disk image %s can't have %d bytes; give a multiple of %d", i.path, size, i.blockSize)
	case int64(size) < now:
		return refuse(fs.ErrInvalid, "disk image %s has %d bytes and can't shrink to %d; the guest may use all of it", i.path, now, size)
	case int64(size) > have && i.readOnly:
		return refuse(fs.ErrPermission, "disk image %s has %d bytes and can't grow to %d; it is open for reading only", i.path, have, size)
	case int64(size) > have:
		if err := truncate(fd, int64(size)); err != nil {
			return refuse(err, "disk image %s can't grow from %d to %d bytes (%v); is there room for it?", i.path, have, size, err)
		}
	}
	atomic.StoreInt64(&i.size, int64(size))
	return nil
}

// duplicate returns another descriptor of the image, which stays the same file when the image is closed.
func (i *Image) duplicate() (int, error) {
	i.changing.Lock()
	defer i.changing.Unlock()
	if i.closed {
		return -1, i.closedError()
	}
	fd, err := unix.FcntlInt(uintptr(i.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, refuse(err, "disk image %s: it can't be resized (%v); try again", i.path, err)
	}
	return fd, nil
}
