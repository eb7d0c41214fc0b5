// Package aio is the shared disk engine of a virtual machine: one thread that
// carries out the requests of every disk, sized by the disks that hang on it.
//
// A disk attaches as a [Port] with the queues its requests come from ([Queue], one
// virtqueue each). The package knows no virtio and no disk format: it pops requests
// from queues, moves bytes between a file and guest memory, and says when it is done.
//
//	guest's kick (eventfd)         other goroutines: Attach, SetWindow, Idle, ...
//	        │                                 │
//	        │ watch                   mailbox + wake eventfd
//	        ▼                                 ▼
//	┌──────────────────────── the engine's thread ─────────────────────────┐
//	│                                                                      │
//	│  wait ──► reap ──► complete ──► publish ──► pass ──► publish ──► ... │
//	│   ▲        │           │           │          │         │            │
//	│   │        │           │      used ring,      │    requests a queue  │
//	│   │        │           │      interrupt       │    answered itself   │
//	│   │        │           ▼                      ▼                      │
//	│   │        │    rest of a short        ports round robin, a few      │
//	│   │        │    transfer ──► again     requests each: Pop ──► submit │
//	└───┼────────┼─────────────────────────────────────────────────┼───────┘
//	    │        │ CQE                                         SQE │
//	┌───┴────────┴──────────────── io_uring ───────────────────────▼───────┐
//	│     reads, writes, fsync, fallocate, and a poll for every eventfd    │
//	└──────────────────────────────────────────────────────────────────────┘
//
// One system call per turn both submits and waits, and a device that has little to do gets its
// requests in a few more (Engine.feed): the kicks are armed in the same ring as the disk
// requests. When nothing happens the thread sleeps in that call and
// nothing wakes it. Before that, with little or nothing in flight, it may look for the next
// answer or request for some microseconds (poll.go). What other threads do, and what is done
// within the call, is in inline.go; how many threads there may be, in pids.go.
//
// That is the engine uring. Two others do without io_uring, and have a wait loop of their
// own (epoll.go) for the kicks and for whoever has finished something:
//
//	native     native.go    Linux AIO for what it does at once, workers for the rest
//	threads    threads.go   workers: system calls that may block (workers.go)
//
// Everything above the box at the bottom is the same for all three, and so are the tests.
//
// What holds at all times:
//
//   - A request is popped only when a credit, a slot, room in the submission queue
//     and, on a disk that may need it, a bounce chunk are there for it. What has none
//     stays in the guest's virtqueue, and so does a flush, discard or write-zeroes that is one
//     too many for its port. Nothing is parked between pop and submit.
//   - What counts as in flight is at most the capacity, over all ports; capacity follows the
//     attached demand (capacity.go). Who gets a credit, and when a request stops counting
//     because its disk is slow or hangs, is in share.go. Per port, in flight ≤ its window
//     (window.go), which limits hold at 0 while they are reached (limit.go).
//   - A turn takes a bounded number of requests from each port, in rotation over ports
//     and over the queues of a port. Queues without requests are not looked at.
//   - Requests are known by the engine's own slot and a sequence number, never by the
//     guest's tag (slots.go). Each completes exactly once, whatever the number of
//     kernel requests it took (transfer.go, zeroes.go), and however often it is retried
//     after a failure that stopped the guest (park.go).
//   - The path of a request allocates nothing on the heap, and takes no lock but that of
//     the workers, once for a batch.
//   - Engine memory and file descriptors stay until the kernel has given back
//     everything: closing a ring does not cancel what is in it.
//
// The core reaches the kernel through a small interface (backend.go); kind.go chooses its
// implementation. uring.go needs Linux 5.13, and from 6.1 on runs at its best; giouring.go
// is the same over a library, in builds with the tag giouring.
//
// With EBB_CHECK=1 in the environment the engine verifies its own books every turn
// and panics where they are wrong.
package aio
