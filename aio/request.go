package aio

import "golang.org/x/sys/unix"

// Op is what a request asks of the disk.
type Op uint8

const (
	Read        Op = iota // file → Segments
	Write                 // Segments → file
	Flush                 // every write completed before it is on stable storage
	Discard               // the range's content no longer matters: a hint
	WriteZeroes           // the range reads back as zeroes
)

// Long reports whether it is one of those that may block a thread for as long as the disk likes.
func (o Op) Long() bool { return classOf(o) == classLong }

// String returns the operation's name as logs and statistics spell it.
func (o Op) String() string {
	switch o {
	case Read:
		return "read"
	case Write:
		return "write"
	case Flush:
		return "flush"
	case Discard:
		return "discard"
	case WriteZeroes:
		return "write-zeroes"
	}
	return "unknown"
}

// Request is one request of a guest, as its queue hands it to the engine.
// The struct belongs to the engine: a queue fills it in Pop and keeps no pointer to it.
type Request struct {
	Op      Op
	Durable bool // Write, Discard, WriteZeroes: on stable storage before it completes (writethrough)
	Unmap   bool // WriteZeroes: the range may be deallocated

	Offset int64 // bytes from the start of the file
	Length int64 // bytes; for Read and Write the sum of Segments

	// Segments is where the data is: host addresses of guest memory, mapped
	// outside Go's heap, in the order of the file. The slice is the engine's and
	// is reused: append to r.Segments[:0]. The memory must stay mapped until Complete.
	Segments []unix.Iovec

	// Tag is the queue's own mark (a descriptor head) and means nothing to the
	// engine, which hands it back with the completion. Two requests in flight may
	// carry the same tag.
	Tag uint32
}

// Popped says what a queue's Pop found.
type Popped uint8

const (
	Empty Popped = iota // nothing there; the request was not touched
	Issue               // the request is to be carried out
	Done                // the queue answered the request by itself; there may be more
	Stays               // what comes next is a long operation, and was not to be taken
)

// Queue is where a port's requests come from: one virtqueue and what decodes it.
//
// All methods are called on the engine's thread only, must not block, and must
// not call Attach, Idle or Close. KickFD is also called once by Attach.
type Queue interface {
	// KickFD returns the eventfd the guest's kick signals. The engine polls it
	// and never reads it; it stays open until the port is detached.
	KickFD() int

	// Pop takes at most one request from the queue. Unless long, an operation that is (Op.Long)
	// stays there, with what is behind it.
	Pop(r *Request, long bool) Popped

	// Complete ends a request, exactly once for each Issue. r is as Pop left it, and the
	// engine's again afterwards. n is the number of bytes moved to or from Segments, also
	// beside an error; it is 0 for operations without data. A Read that failed or came back
	// short may have written to any of its Segments. err is 0 for success.
	Complete(r *Request, n int64, err unix.Errno)

	// Publish ends a batch: completions since the last Publish become visible to
	// the guest, which is interrupted if it wants to be.
	Publish()

	// Pending reports whether there may be something to pop, at the cost of a look into memory.
	Pending() bool

	// EnableKicks asks for a kick when the next request arrives. It is called
	// after Pop returned Empty. It reports true if a request came meanwhile for
	// which there may be no kick; the engine then pops again.
	EnableKicks() (more bool)

	// DisableKicks says that the engine will look by itself.
	DisableKicks()
}
