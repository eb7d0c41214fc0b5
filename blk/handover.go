package blk

import (
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// How an image goes from one host to another while its guest is migrated. Each lock byte is
// held by one side, by both never, and at each moment at least one of the two is held, so
// that nobody else, who would need both, comes in between.
//
//	source                          owner  reservation   destination
//	OpenImage                       S      S
//	                                S      S             OpenIncoming, CheckIncoming
//	OfferReservation                S      -
//	                                S      D             TakeReservation
//	(drained) Device.Sync
//	ReleaseOwner                    -      D
//	                                D      D             TakeOver, and only now a port on the engine
//	Close                           D      D
//
// and back, from wherever it has come to: ReleaseOwner, OfferReservation at the destination,
// then ReclaimOwner, ReclaimReservation at the source. Each step may be repeated. Read-only images have shared locks,
// which both sides hold all the time: every step succeeds and changes nothing.
//
// All methods may be called by any goroutine; those of one image wait for each other.

// OfferReservation lets another host reserve the image.
func (i *Image) OfferReservation() error { return i.changeLock(lockReservation, unix.F_UNLCK) }

// ReclaimReservation undoes OfferReservation. The error wraps ErrLocked if somebody else has it.
func (i *Image) ReclaimReservation() error { return i.changeLock(lockReservation, unix.F_WRLCK) }

// ReleaseOwner gives up the right to do I/O. Preconditions: no request is in flight or will
// be, and what was written is on stable storage (Device.Sync).
func (i *Image) ReleaseOwner() error {
	return i.change(func() error {
		if err := i.lockReservationAlone(); err != nil {
			return i.lockError(err)
		}
		i.left = i.trace()
		return i.setLock(lockOwner, unix.F_UNLCK)
	})
}

// lockReservationAlone makes up for what passLocks may have left: with the reservation shared, who would only
// read could have the image as soon as the owner lock is free.
func (i *Image) lockReservationAlone() error {
	const wait = time.Second // for readers to find that they can't have it: they don't take this long
	for deadline := time.Now().Add(wait); i.reservationShared; {
		switch err := lockByte(i.fd, lockReservation, unix.F_WRLCK); {
		case err == nil:
			i.reservationShared = false
		case err != unix.EAGAIN || time.Now().After(deadline):
			return err
		default:
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// ReclaimOwner undoes ReleaseOwner. The error wraps ErrLocked if somebody else has it: then
// this side must do no I/O.
func (i *Image) ReclaimOwner() error { return i.changeLock(lockOwner, unix.F_WRLCK) }

// TakeReservation takes what the source has offered. The error wraps ErrLocked if it hasn't,
// or if somebody else was faster.
func (i *Image) TakeReservation() error { return i.ReclaimReservation() }

func (i *Image) changeLock(at int64, typ int16) error {
	return i.change(func() error { return i.setLock(at, typ) })
}

func (i *Image) setLock(at int64, typ int16) error {
	if err := lockByte(i.fd, at, typ); err != nil {
		return i.lockError(err)
	}
	if has := typ != unix.F_UNLCK; at == lockOwner {
		i.owner = has
	} else {
		i.reserved, i.reservationShared = has, false
	}
	return nil
}

// change is a step of the hand-over, but for read-only images.
func (i *Image) change(step func() error) error {
	i.changing.Lock()
	defer i.changing.Unlock()
	switch {
	case i.closed:
		return i.closedError()
	case i.readOnly:
		return nil
	}
	return step()
}

func (i *Image) closedError() error {
	return refuse(fs.ErrClosed, "disk image %s is not in use any more", i.path)
}

// OpenIncoming opens an image that another host's guest is using, and finds out what it is
// like. It takes no lock, but for the shared ones of a read-only image, and leaves nothing in the
// page cache. Nothing may be read or written before TakeOver: a Device with it refuses
// to be activated. It is raw, as the guest has it, whatever that has written to its start. Errors are as OpenImage's.
func OpenIncoming(path string, o ImageOptions) (*Image, error) {
	o.Raw = true
	if o.ReadOnly {
		return OpenImage(path, o)
	}
	i, err := newImage(path, o, func(*Image) error { return nil })
	if err != nil {
		return nil, err
	}
	i.incoming.Store(true)
	return i, nil
}

// TakeOver takes the owner lock and makes the image ready for I/O: opened anew, because a
// network file system looks only then whether it has changed, without stale pages in this
// host's cache, and found to be the same file of the same size. After an error, which wraps
// ErrLocked if the source hasn't released the image, this side doesn't hold the owner lock, and
// TakeOver may be called again. It is for images of OpenIncoming, after TakeReservation; it
// may also be called again after ReleaseOwner. It may take as long as writing back and
// dropping what other programs of this host have cached of the image.
// Preconditions: no Device of this image is active.
func (i *Image) TakeOver() error { return i.change(i.takeOver) }

func (i *Image) takeOver() error {
	for _, at := range []int64{lockReservation, lockOwner} {
		if err := i.setLock(at, unix.F_WRLCK); err != nil {
			return errors.Join(err, i.disown())
		}
	}
	if err := i.reopen(); err != nil {
		return errors.Join(err, i.disown())
	}
	i.incoming.Store(false)
	return nil
}

// disown gives up the owner lock after a failed TakeOver.
func (i *Image) disown() error {
	i.incoming.Store(true)
	return i.setLock(lockOwner, unix.F_UNLCK)
}

// reopen replaces the descriptor by one opened now, to which both locks go over. The image
// keeps the old one if anything fails.
func (i *Image) reopen() error {
	fd, st, err := openFile(i.path, ImageOptions{ReadOnly: i.readOnly, Direct: i.direct})
	if err != nil {
		return err
	}
	next := &Image{path: i.path, fd: fd, direct: i.direct, device: i.device}
	err = next.verify(i, placeOf(st))
	if err == nil {
		err = i.passLocks(fd)
	}
	if err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written
		return err
	}
	old := i.fd
	i.fd = fd
	unix.Close(old) //nolint:errcheck // nothing was written
	return nil
}

// verify checks that a newly opened image is what it was before, and drops what this host
// may have cached of it.
func (i *Image) verify(before *Image, at place) error {
	if at != before.place {
		return refuse(fs.ErrInvalid, "disk image %s was replaced by another file during the migration; put it back", i.path)
	}
	if !i.direct && !before.coherent {
		if err := i.dropCache(); err != nil {
			return refuse(err, "disk image %s: what this host has cached of it can't be dropped (%v); use direct", i.path, err)
		}
	}
	size, err := i.fileSize(i.fd)
	switch {
	case err != nil:
		return refuse(err, "disk image %s: its size can't be read (%v)", i.path, err)
	case size != before.Size():
		return refuse(fs.ErrInvalid, "disk image %s has %d bytes now and had %d when the migration began; resize it before or after, not meanwhile", i.path, size, before.Size())
	}
	return nil
}

// dropCache has the next reads come from storage. Dirty pages can't be dropped and so are
// written first; there are none, unless another program of this host has written to the image.
func (i *Image) dropCache() error {
	if err := unix.Fdatasync(i.fd); err != nil {
		return err
	}
	if i.device {
		// It needs CAP_SYS_ADMIN; what follows does the same, but for pages in use.
		if _, err := unix.IoctlRetInt(i.fd, unix.BLKFLSBUF); err == nil {
			return nil
		}
	}
	return unix.Fadvise(i.fd, 0, 0, unix.FADV_DONTNEED)
}

// passLocks takes both locks over to another descriptor of the same image. Such a lock
// belongs to the open file description, so that the two exclude each other like strangers.
// What holds a stranger off at each moment:
//
//	owner:        old exclusive → old shared → both shared → new shared → new exclusive
//	              the old one's exclusive reservation, without which nobody gets as far as the owner lock
//	reservation:  the same; the new one's exclusive owner lock
//
// One who would only read may get the shared reservation for the moment it takes to find that
// the owner lock is not to be had. Then the new descriptor keeps it shared too, which is enough until ReleaseOwner.
func (i *Image) passLocks(to int) error {
	for _, at := range []int64{lockOwner, lockReservation} {
		for _, step := range []struct {
			fd  int
			typ int16
		}{{i.fd, unix.F_RDLCK}, {to, unix.F_RDLCK}, {i.fd, unix.F_UNLCK}, {to, unix.F_WRLCK}} {
			switch err := lockByte(step.fd, at, step.typ); {
			case err == nil:
			case at == lockReservation && step.typ == unix.F_WRLCK && err == unix.EAGAIN:
				i.reservationShared = true
			default:
				return i.lockError(err)
			}
		}
	}
	return nil
}
