package aio

import "golang.org/x/sys/unix"

// backend is what carries requests to the kernel and events back. Everything is called
// on the engine's thread, on which the backend was also made.
type backend interface {
	// room is the number of operations submit will still take before the next wait.
	room() int

	// submit queues one operation. The operation itself is copied; its iovecs and what
	// they point at must stay until its event has been reaped.
	//
	// Preconditions: room() > 0.
	submit(op *operation)

	// watch reports the descriptor's becoming readable, once or more often for each
	// time, as eventSignal, beginning with its present state. Edges count: the
	// descriptor is never read. id is free for use.
	watch(id uint32, fd int)

	// unwatch ends a watch. The last event of id is eventGone; then id is free again.
	unwatch(id uint32)

	// resize prepares for as many operations in flight, of which as many may block a thread
	// each as there are workers.
	resize(capacity, workers int) error

	// forget says that a descriptor may from now on be another file than it was.
	//
	// Preconditions: none of its operations is in flight.
	forget(fd int)

	// wait hands everything queued to the kernel and, if block is set, sleeps until at
	// least one event is there. It may return early.
	wait(block bool) error

	// pending reports whether there is something to reap, perhaps after another wait, as far
	// as that can be told without a system call.
	pending() bool

	// unaided reports whether devices alone are busy with what is in flight, as far as is
	// known, and no other thread of the host.
	unaided() bool

	// reap stores events that have come and returns how many; fewer than len(events)
	// means there are no more.
	reap(events []event) int

	// close gives back the backend's memory.
	//
	// Preconditions: no operation is in flight.
	close() error
}

// operation is one request to the kernel; carrying out a guest's request may take several.
type operation struct {
	id     uint64 // handed back in the event
	code   opcode
	fd     int
	offset int64        // bytes
	iov    []unix.Iovec // opRead, opWrite; at most maxIovecs
	length int64        // opAllocate: bytes
	mode   uint32       // opAllocate: FALLOC_FL_*
	dsync  bool         // opWrite: on stable storage before it completes
	async  bool         // may block: don't try it inline first
	nowait bool         // opRead, opWrite: the kernel's threads are not for it
	file   handOver     // opRead, opWrite: what its file needs
}

type opcode uint8

const (
	opRead opcode = iota
	opWrite
	opSync     // fdatasync(2)
	opAllocate // fallocate(2)
)

// maxIovecs is the kernel's UIO_MAXIOV: more in one call are refused.
const maxIovecs = 1024

// event is what the kernel said.
type event struct {
	kind   eventKind
	id     uint64 // an operation's or, for the other kinds, a watch's
	result int32  // eventDone, eventBroken, eventNoRoom: as the system call's, or -errno
}

// tried is the result of an operation that was asked not to block. What a file can't do in that way, or at this place of it (a file system
// that goes on buffered where it can't do direct I/O, before Linux 6.1), and says so only now, is to be tried again as what would block is.
// Whether that was the reason EINVAL doesn't say; a worker finds out.
func tried(result int32) int32 {
	if errno := unix.Errno(-result); errno == unix.EOPNOTSUPP || errno == unix.EINVAL {
		return -int32(unix.EAGAIN)
	}
	return result
}

type eventKind uint8

const (
	eventDone   eventKind = iota // an operation has ended
	eventSignal                  // a watched descriptor was signalled
	eventBroken                  // a watch failed and reports nothing any more; unwatch still applies
	eventGone                    // the watch has ended after unwatch
	eventNoRoom                  // the capacity of the last resize is not fully backed; it has no id
)
