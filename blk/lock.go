package blk

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Image locks are open file description locks (fcntl(2), F_OFD_SETLK) on two
// bytes far beyond the end of any image. They belong to the open file: two
// openings of the same inode collide, whatever name (hard link, symbolic link) and whichever
// process, and the lock ends with the last descriptor.
//
//	owner        who may do I/O now
//	reservation  who may do it next; a migration passes it over first, so that nobody slips in between
//
// Every opener takes both, read-only ones shared, others exclusive. The locks are
// advisory, and live on the inode: on a block device that is the device node, and
// only on this host. The bytes are not 0 and 1 because other programs lock ranges at the start of images.
const (
	lockOwner       = 0x6562_6200_0000_0000 // "ebb"
	lockReservation = lockOwner + 1
)

// ErrLocked is behind the error for an image that somebody else has open.
var ErrLocked = errors.New("image is locked")

// lock takes both locks, or none.
func (i *Image) lock() error {
	for _, at := range []int64{lockOwner, lockReservation} {
		if err := i.lockByte(at, unix.F_OFD_SETLK, i.lockType()); err != nil {
			return i.lockError(err)
		}
	}
	return nil
}

func (i *Image) lockType() int16 {
	if i.readOnly {
		return unix.F_RDLCK
	}
	return unix.F_WRLCK
}

func (i *Image) lockByte(at int64, cmd int, typ int16) error {
	return unix.FcntlFlock(uintptr(i.fd), cmd, &unix.Flock_t{Type: typ, Whence: unix.SEEK_SET, Start: at, Len: 1})
}

func (i *Image) lockError(err error) error {
	if err != unix.EAGAIN && err != unix.EACCES {
		return refuse(err, "disk image %s can't be locked (%v); put it on a file system with POSIX locks", i.path, err)
	}
	// Who it is the kernel doesn't say for these locks (its pid is -1), only how it is held.
	if i.readOnly {
		return refuse(ErrLocked, "disk image %s is in use read-write by another process or another disk of this VM; stop that one first", i.path)
	}
	return refuse(ErrLocked, "disk image %s is in use by another process or another disk of this VM; stop that one first, or use readonly for both", i.path)
}
