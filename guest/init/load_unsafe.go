package main

import (
	"math/rand/v2"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writer is one write at a time, by Linux AIO: all writers share a thread, so that what they cost the guest's processor is
// mostly its kernel's. With a thread each, an emulated processor spent more time on the threads than on their writes.
type writer struct {
	cb     iocb
	disk   *disk
	begin  time.Time
	random *rand.Rand
}

// iocb and ioEvent are those of the kernel (include/uapi/linux/aio_abi.h).
type iocb struct {
	data   uint64
	_      uint64 // key, rw_flags
	opcode uint16
	_      int16 // priority
	fd     uint32
	buf    uint64
	bytes  uint64
	offset int64
	_      [2]uint64 // reserved, flags, eventfd
}

type ioEvent struct {
	data, obj uint64
	res, res2 int64
}

const iocbPWrite = 1 // IOCB_CMD_PWRITE

// write is depth writers on each disk. It keeps a thread, and one of Go's processors, to itself: its system calls are none
// that the runtime knows of, as the watcher's.
func (l *loaded) write(disks []*disk, depth int) error {
	runtime.LockOSThread()
	// The runtime asks the thread to give way every 10 ms, by a signal that would only end its wait.
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGURG - 1)}}, nil); err != nil {
		return os.NewSyscallError("sigmask", err)
	}
	buf, err := alignedBuffer(loadPage)
	if err != nil {
		return err
	}
	var ctx uintptr
	if _, _, errno := unix.RawSyscall(unix.SYS_IO_SETUP, uintptr(len(disks)*depth), uintptr(unsafe.Pointer(&ctx)), 0); errno != 0 {
		return os.NewSyscallError("io_setup", errno)
	}
	// iocbs are the kernel's while they are in flight: the memory they are in doesn't move.
	writers := make([]writer, len(disks)*depth)
	events := make([]ioEvent, len(writers))
	next := make([]*iocb, len(writers))
	for i := range writers {
		w := &writers[i]
		w.disk, w.random = disks[i/depth], rand.New(rand.NewPCG(uint64(i), 0))
		w.cb = iocb{data: uint64(i), opcode: iocbPWrite, fd: uint32(w.disk.fd), buf: uint64(uintptr(unsafe.Pointer(&buf[0]))), bytes: loadPage}
		w.again()
		next[i] = &w.cb
	}
	for n := len(next); ; {
		for begun := 0; begun < n; {
			done, _, errno := unix.RawSyscall(unix.SYS_IO_SUBMIT, ctx, uintptr(n-begun), uintptr(unsafe.Pointer(&next[begun])))
			if errno != 0 {
				return os.NewSyscallError("io_submit", errno)
			}
			begun += int(done)
		}
		got, _, errno := unix.RawSyscall6(unix.SYS_IO_GETEVENTS, ctx, 1, uintptr(len(events)), uintptr(unsafe.Pointer(&events[0])), 0, 0)
		if errno == unix.EINTR {
			n = 0
			continue
		}
		if errno != 0 {
			return os.NewSyscallError("io_getevents", errno)
		}
		n = int(got)
		for i, e := range events[:n] {
			w := &writers[e.data]
			var err error
			if e.res < 0 {
				err = unix.Errno(-e.res)
			}
			if err := whole("write", int(e.res), loadPage, w.cb.offset, err); err != nil {
				return err
			}
			raise(&l.longest, int64(time.Since(w.begin)))
			w.again()
			next[i] = &w.cb
		}
		l.done.Add(int64(n))
	}
}

// again is another write of a writer.
func (w *writer) again() {
	w.cb.offset = w.random.Int64N(w.disk.size/loadPage) * loadPage
	w.begin = time.Now()
}
