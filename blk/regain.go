package blk

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Regain takes back what this side doesn't have of the two locks, for a guest that was left standing by a migration and whose user says that it runs
// nowhere else. It fails, as ReclaimOwner does, if somebody else has them, and also if a file was written since this side gave up the owner
// lock: what the guest has in memory is older then. Of a block device that can't be told. undo gives up what was
// taken, and nothing else; after an error that was done. Any goroutine.
func (i *Image) Regain() (undo func() error, err error) {
	giveUp := func() error { return nil }
	err = i.change(func() error {
		owner, reserved := i.owner, i.reserved
		giveUp = func() (err error) {
			if !owner {
				err = i.setLock(lockOwner, unix.F_UNLCK)
			}
			if !reserved {
				err = errors.Join(err, i.setLock(lockReservation, unix.F_UNLCK))
			}
			return err
		}
		for _, at := range []int64{lockReservation, lockOwner} {
			if err := i.setLock(at, unix.F_WRLCK); err != nil {
				return errors.Join(err, giveUp())
			}
		}
		if now := i.trace(); !owner && i.left != nil && (now == nil || *now != *i.left) {
			return errors.Join(refuse(fs.ErrInvalid, "disk image %s was written since; the guest has run elsewhere, and must not go on here: kill it", i.path), giveUp())
		}
		return nil
	})
	return func() error { return i.change(giveUp) }, err
}

// trace is what a write leaves behind.
type trace struct {
	size  uint64
	mtime unix.StatxTimestamp
}

// trace of a regular file, as its server knows it if it has one; nil: it is none, or isn't to be had.
func (i *Image) trace() *trace {
	var st unix.Statx_t
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_FORCE_SYNC
	if i.device || unix.Statx(i.fd, "", flags, unix.STATX_SIZE|unix.STATX_MTIME, &st) != nil {
		return nil
	}
	return &trace{st.Size, st.Mtime}
}
