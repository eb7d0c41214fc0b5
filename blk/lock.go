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
// Every opener takes both, the reservation first, so that one who comes in the middle of a
// migration is turned away before it has touched the owner byte, for which the two hosts have no time to
// wait (handover.go). Read-only openers take them shared, others exclusive. The locks are
// advisory, and live on the inode: on a block device that is the device node, and
// only on this host. The bytes are not 0 and 1 because other programs lock ranges at the start of images.
const (
	lockOwner       = 0x6562_6200_0000_0000 // "ebb"
	lockReservation = lockOwner + 1
)

// ErrLocked is behind the error for an image that somebody else has open.
var ErrLocked = errors.New("image is locked")

// lock takes both locks. After an error the image is to be closed, which gives back what it got.
func (i *Image) lock() error {
	// Asked first, to touch nothing where there is nothing to be had.
	if held, err := lockHeld(i.fd, lockOwner, i.lockType()); err != nil {
		return i.lockError(err)
	} else if held {
		return i.lockError(unix.EAGAIN)
	}
	for _, at := range []int64{lockReservation, lockOwner} {
		if err := lockByte(i.fd, at, i.lockType()); err != nil {
			return i.lockError(err)
		}
	}
	i.owner, i.reserved = true, true
	return nil
}

func (i *Image) lockType() int16 {
	if i.readOnly {
		return unix.F_RDLCK
	}
	return unix.F_WRLCK
}

// lockByte takes, converts or gives back a lock, at once or not at all. To convert one is
// atomic, and if that fails it is as it was.
func lockByte(fd int, at int64, typ int16) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: typ, Whence: unix.SEEK_SET, Start: at, Len: 1})
}

// lockHeld reports whether somebody else's lock is in the way of one.
func lockHeld(fd int, at int64, typ int16) (bool, error) {
	l := unix.Flock_t{Type: typ, Whence: unix.SEEK_SET, Start: at, Len: 1}
	err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l)
	return l.Type != unix.F_UNLCK, err
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
