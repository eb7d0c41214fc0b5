package blk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceSync serialises the syncs of a disk: of those that a hung disk swallows there is one.
type deviceSync struct {
	turn chan struct{} // holds an element while one runs

	// The latest failure, until the guest has flushed since: its flush reports what the host
	// could not write, and until then a migration would carry the guest away from that.
	// Whoever has the turn has these.
	failed  error
	flushes uint64 // PortStats.Flushes at the failure
}

// syncFailed is told that an fdatasync of the engine's failed (aio.PortConfig.SyncFailed). The kernel says of pages that it could
// not write once for each open file, forgets that they are dirty, and calls the next fdatasync a success. What the guest was told is
// complete is lost then, and so no flush succeeds any more: not the one that failed, should it be carried out again, and none after it.
// What direct I/O writes is in no page cache. On the engine's thread.
func (d *Device) syncFailed(err unix.Errno) {
	if d.image.direct || d.image.lost.Swap(true) {
		return
	}
	// Once for an image, so that it needs no bound, and must not be lost among the lines of the requests that fail with it.
	go d.unbounded.Error("the host could not write what it had cached of an image: writes of the guest's are lost, and its flushes fail until it ends",
		"disk", d.id, "image", d.image.path, "err", err)
}

// Lost reports whether the host could not write what it had cached: writes of the guest's are lost, and its flushes fail. Any goroutine.
func (i *Image) Lost() bool { return i.lost.Load() }

func newDeviceSync() deviceSync { return deviceSync{turn: make(chan struct{}, 1)} }

// Sync puts what the guest has written on stable storage: everything that completed before
// the call. It pays the port's sync debt. It waits for ctx at most; what it began goes on in
// the background then, and the next Sync waits for that. The error names the disk; after a
// failure the following calls fail too, until the guest has flushed and so knows of it. For a
// block device with direct I/O there is nothing to do (Image.shared). Any goroutine but the engine's.
func (d *Device) Sync(ctx context.Context) error { return d.syncBy(ctx, (*Image).sync) }

// WriteBack is a Sync for the background: it first has the dirty pages written, which holds up no
// flush of the guest's, and then syncs what little is left.
func (d *Device) WriteBack(ctx context.Context) error { return d.syncBy(ctx, (*Image).writeBack) }

func (d *Device) syncBy(ctx context.Context, sync func(*Image) error) error {
	if d.image.readOnly || d.image.shared() {
		return nil
	}
	select {
	case d.sync.turn <- struct{}{}:
	case <-ctx.Done():
		return d.syncLate(ctx)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-d.sync.turn }()
		done <- d.syncNow(sync)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return d.syncLate(ctx)
	}
}

func (d *Device) syncLate(ctx context.Context) error {
	return fmt.Errorf("disk %s: image %s is still being synced: %w", d.id, d.image.path, ctx.Err())
}

// syncNow is a sync on a goroutine of its own, which has the turn.
func (d *Device) syncNow(sync func(*Image) error) error {
	port, flushes, mark := d.port.Load(), uint64(0), uint64(0)
	if port != nil {
		flushes, mark = port.Stats().Flushes, port.Written()
	}
	if d.image.lost.Load() {
		return fmt.Errorf("disk %s: the host could not write what it had cached of image %s, and writes of the guest's are lost; end the guest, and check its file systems", d.id, d.image.path)
	}
	s := &d.sync
	if s.failed != nil && s.flushes == flushes {
		return s.failed
	}
	s.failed = nil
	if err := sync(d.image); err != nil {
		s.failed, s.flushes = fmt.Errorf("disk %s: image %s can't be synced: %w", d.id, d.image.path, err), flushes
		return s.failed
	}
	if port != nil {
		port.Synced(mark)
	}
	return nil
}

// shared reports whether other hosts find what was written as soon as it is complete: of a block device with direct I/O
// nothing is in this host's memory. It may be in the device's own volatile cache. That is the same one for all hosts, and
// what the guest has not flushed it promises to nobody, migration or not; the guest's next flush, wherever it runs, empties it.
// A file may have more that is this host's alone: sizes, extents, data on file systems that only pretend to do direct I/O.
func (i *Image) shared() bool {
	return i.direct && i.device && !onLoop(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(i.place.dev), unix.Minor(i.place.dev)))
}

// onLoop reports whether a block device, given by its folder in sysfs, is or may be on top of a loop device, which keeps what
// is written in this host's page cache, direct I/O or not (Documentation/ABI/testing/sysfs-block, sysfs-class-block).
func onLoop(sys string) bool {
	dir, err := filepath.EvalSymlinks(sys)
	if err != nil || strings.HasPrefix(filepath.Base(dir), "loop") {
		return true
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir) // what it stands on is said of the whole
	}
	below, err := os.ReadDir(filepath.Join(dir, "slaves"))
	return err != nil || slices.ContainsFunc(below, func(e os.DirEntry) bool { return onLoop(filepath.Join(dir, "slaves", e.Name())) })
}

// sync is fdatasync.
func (i *Image) sync() error { return i.withOwnView(unix.Fdatasync) }

// writeBack writes dirty pages first, without the file system's journal and the device's cache.
func (i *Image) writeBack() error {
	return i.withOwnView(func(fd int) error {
		if !i.direct {
			const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
			if err := unix.SyncFileRange(fd, 0, 0, all); err != nil && err != unix.ENOSYS && err != unix.ESPIPE {
				return err
			}
		}
		return unix.Fdatasync(fd)
	})
}

// withOwnView runs f with a descriptor that was opened for it. The kernel tells each open file
// description once that pages could not be written (Documentation/filesystems/vfs.rst, "Handling
// errors during writeback"): asked on the engine's, that would not be in the answer to the guest's
// next flush. And the image may be closed while f hangs.
func (i *Image) withOwnView(f func(fd int) error) error {
	i.changing.Lock()
	if i.closed {
		i.changing.Unlock()
		return i.closedError()
	}
	// For reading is enough, and nobody who watches for writers of a device is disturbed.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", i.fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	i.changing.Unlock()
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return f(fd)
}
