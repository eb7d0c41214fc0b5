package aio

import "golang.org/x/sys/unix"

// Most transfers are tried on the engine's thread, as part of the system call that submits them,
// with the demand not to block (RWF_NOWAIT); those that would go to another thread. A file that
// can't be asked that leaves these:
//
//	on tmpfs, with O_DIRECT, and without swap   up to 64 KiB on the engine's thread: it is a copy
//	                                            within memory, and shorter than waking another thread
//	on NFS, with O_DIRECT                       with Linux AIO on the engine's thread, which only sends it;
//	                                            with io_uring on another
//	anything else (FUSE, overlayfs, ...)        on another thread, without a try: it may do I/O before it returns
//
// On tmpfs a write takes the file's lock, which another thread may hold for as long as a large
// write or a discard takes. So writes go to other threads while one of the port is there.
// Linux AIO can be asked for the first way as it is. io_uring does it only on files that are
// marked with O_NONBLOCK, which means nothing to tmpfs itself.

// maxInline is the most bytes the engine's own thread copies for one operation, from the
// page cache or a file in memory; larger ones go to another thread.
const maxInline = 64 << 10

// handOver is what a file needs of other threads.
type handOver uint8

const (
	handBlocking handOver = iota // nothing but what would block
	handBuffered                 // the same, through the page cache: io_uring sees to it itself
	handLarge                    // of a file in memory
	handRemote                   // nothing that Linux AIO takes
	handAll
)

// handOverOf finds out about a file, and marks it if it is in memory.
func handOverOf(fd int) handOver {
	var fs unix.Statfs_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	direct := err == nil && flags&unix.O_DIRECT != 0
	switch {
	case knowsNowait(fd) && direct:
		return handBlocking
	case knowsNowait(fd):
		return handBuffered
	case !direct || unix.Fstatfs(fd, &fs) != nil:
		return handAll
	}
	switch fs.Type {
	case unix.NFS_SUPER_MAGIC:
		return handRemote
	case unix.TMPFS_MAGIC:
		var host unix.Sysinfo_t
		if unix.Sysinfo(&host) != nil || host.Totalswap > 0 {
			return handAll
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NONBLOCK); err != nil {
			return handAll
		}
		return handLarge
	}
	return handAll
}

// hand decides where a transfer takes place, and counts what holds the file's lock elsewhere.
func (p *Port) hand(s *slot, op *operation) {
	transfer := op.code == opRead || op.code == opWrite
	if transfer {
		op.file = p.handOver
		op.nowait = p.handOver == handBlocking && p.inFlight > p.mayBlock
	}
	if p.handOver == handLarge {
		op.async = op.async || transfer && op.length > maxInline || op.code == opWrite && p.elsewhere > 0
	}
	if op.code != opRead && (op.async || !transfer) {
		s.elsewhere = true
		p.elsewhere++
	}
}
