package aio

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func newTestNative(t *testing.T) *native {
	lockThread(t)
	n, _, err := newNative(minCapacity)
	must(t, err)
	t.Cleanup(func() { must(t, n.close()) })
	return n
}

// readAll submits reads of 4 KiB until there is no room, and returns how many.
func readAll(t *testing.T, n *native, fd int, buffer []byte) (count int) {
	t.Helper()
	file := handBlocking
	if !knowsNowait(fd) {
		file = handLarge
	}
	for ; n.room() > 0; count++ {
		n.submit(&operation{id: uint64(count), code: opRead, fd: fd, file: file, iov: []unix.Iovec{iovec(buffer)}})
	}
	return count
}

// resized waits until the context fits.
func resized(t *testing.T, n *native, capacity int) {
	t.Helper()
	must(t, n.resize(capacity, minWorkers))
	n.aside.Wait()
	n.replace()
}

// A new context takes the place of one that still has operations, which are not lost.
func TestContextIsReplacedInFlight(t *testing.T) {
	for _, capacity := range []int{1000, 5000, 64, 3000} {
		n := newTestNative(t)
		fd := openFile(t, "/dev/shm", unix.O_DIRECT, 1<<20)
		b := alignedBytes(4096, 4096)
		first := readAll(t, n, fd, b)
		must(t, n.wait(false)) // in the context until they are reaped
		resized(t, n, capacity)
		if replaced := len(n.old) == 1; replaced != (capacity > minCapacity) || n.context.events < capacity {
			t.Fatalf("capacity %d: a context of %d, %d old ones", capacity, n.context.events, len(n.old))
		}
		resized(t, n, 2*capacity)
		second := readAll(t, n, fd, b)
		seen := map[uint64]int{}
		for range first + second {
			if ev := nextEvent(t, n); ev.kind != eventDone || ev.result != 4096 {
				t.Fatalf("%+v", ev)
			} else {
				seen[ev.id]++
			}
		}
		quiet(t, n)
		for id, times := range seen {
			if times != 2 {
				t.Fatalf("operation %d completed %d times", id, times)
			}
		}
		if len(n.old) != 0 || n.context.inFlight != 0 {
			t.Errorf("%d contexts left, %d in flight", len(n.old), n.context.inFlight)
		}
	}
}

// A context that is much too large is given back, one that is a little too large is kept.
func TestContextFitsCapacity(t *testing.T) {
	n := newTestNative(t)
	for _, c := range []struct{ capacity, events int }{{1000, 1024}, {512, 1024}, {256, 1024}, {255, 256}, {64, 256}, {62, 64}, {63, 64}} {
		resized(t, n, c.capacity)
		if n.context.events != c.events {
			t.Errorf("capacity %d: %d events, want %d", c.capacity, n.context.events, c.events)
		}
	}
}

// What changes while a context is being made is not forgotten, and neither is the context.
func TestContextIsMadeAside(t *testing.T) {
	n := newTestNative(t)
	for _, capacity := range []int{1000, 5000, 2000} {
		must(t, n.resize(capacity, minWorkers))
	}
	if n.context.events != minCapacity {
		t.Errorf("a context of %d at once", n.context.events)
	}
	for range 2 {
		n.aside.Wait()
		n.replace()
	}
	if n.context.events != 2048 {
		t.Errorf("a context of %d for 2000", n.context.events)
	}
	must(t, n.resize(1<<14, minWorkers)) // and close
}

// More in flight than the context takes: the rest goes to workers.
func TestFullContext(t *testing.T) {
	n := newTestNative(t)
	c, errno := newContext(1) // the kernel makes it a few larger
	if errno != 0 {
		t.Fatal(errno)
	}
	n.context, c = c, n.context
	defer c.destroy()
	fd := openFile(t, "/dev/shm", unix.O_DIRECT, 1<<20)
	b := alignedBytes(4096, 4096)
	total := 0
	for range 20 {
		total += readAll(t, n, fd, b)
		must(t, n.wait(false))
	}
	if n.context.inFlight >= total {
		t.Errorf("all %d were taken", total)
	}
	for range total {
		if ev := nextEvent(t, n); ev.kind != eventDone || ev.result != 4096 {
			t.Fatalf("%+v", ev)
		}
	}
	quiet(t, n)
}

// What io_submit can't do is found out, once for each file.
func TestWhatIsSubmitted(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must(t, err)
	defer full.Close()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	small, large := alignedBytes(4096, 4096), alignedBytes(2*maxInline, 4096)
	direct, memory, tmpfs := openFile(t, "", unix.O_DIRECT, 1<<20), openFile(t, "/dev/shm", unix.O_DIRECT, 1<<20), openFile(t, "/dev/shm", 0, 1<<20)
	for _, c := range []struct {
		name   string
		op     operation
		before nativeFile
		inline bool // given to io_submit
		after  nativeFile
	}{
		{"direct read", operation{code: opRead, fd: direct, iov: []unix.Iovec{iovec(large)}}, fileUnknown, true, fileDirect},
		{"direct write", operation{code: opWrite, fd: direct, iov: []unix.Iovec{iovec(small)}}, fileUnknown, true, fileDirect},
		{"direct durable write", operation{code: opWrite, fd: direct, dsync: true, iov: []unix.Iovec{iovec(small)}}, fileUnknown, true, fileDirect},
		{"again", operation{code: opRead, fd: direct, async: true, iov: []unix.Iovec{iovec(small)}}, fileUnknown, false, fileUnknown},
		{"flush", operation{code: opSync, fd: direct}, fileUnknown, false, fileUnknown},
		{"discard", operation{code: opAllocate, fd: direct, length: 4096, mode: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE}, fileUnknown, false, fileUnknown},
		{"tmpfs read", operation{code: opRead, fd: memory, file: handLarge, iov: []unix.Iovec{iovec(small), iovec(small)}}, fileUnknown, true, fileDirect},
		{"tmpfs large read", operation{code: opRead, fd: memory, file: handLarge, iov: []unix.Iovec{iovec(large)}}, fileUnknown, false, fileDirect},
		{"tmpfs large vector", operation{code: opWrite, fd: memory, file: handLarge, iov: []unix.Iovec{iovec(small), iovec(large)}}, fileUnknown, false, fileDirect},
		{"remote write", operation{code: opWrite, fd: memory, file: handRemote, iov: []unix.Iovec{iovec(small)}}, fileUnknown, true, fileDirect},
		{"remote large write", operation{code: opWrite, fd: memory, file: handRemote, iov: []unix.Iovec{iovec(large)}}, fileUnknown, false, fileDirect},
		{"what may block", operation{code: opRead, fd: memory, file: handAll, iov: []unix.Iovec{iovec(small)}}, fileUnknown, false, fileUnknown},
		{"what can't be asked", operation{code: opRead, fd: memory, iov: []unix.Iovec{iovec(small)}}, fileUnknown, true, fileBlocking},
		{"buffered write", operation{code: opWrite, fd: tmpfs, iov: []unix.Iovec{iovec(small)}}, fileUnknown, false, fileBuffered},
		{"buffered read", operation{code: opRead, fd: tmpfs, iov: []unix.Iovec{iovec(small)}}, fileUnknown, true, fileBlocking},
		{"buffered read, known", operation{code: opRead, fd: tmpfs, iov: []unix.Iovec{iovec(small)}}, fileBlocking, false, fileBlocking},
		{"write to a character device", operation{code: opWrite, fd: int(full.Fd()), iov: []unix.Iovec{iovec(small)}}, fileUnknown, false, fileBuffered},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newTestNative(t)
			if c.before != fileUnknown {
				n.learn(c.op.fd, c.before)
			}
			n.submit(&c.op)
			if inline := n.queued == 1; inline != c.inline || len(n.workers.batch) != 1-n.queued {
				t.Errorf("%d queued, %d to workers", n.queued, len(n.workers.batch))
			}
			length, _ := survey(c.op.iov, 1)
			want := int32(length)
			if c.op.fd == int(full.Fd()) {
				want = -int32(unix.ENOSPC)
			}
			ev := nextEvent(t, n)
			if putOff := c.inline && ev.result == -int32(unix.EAGAIN); ev.result != want && !putOff {
				t.Errorf("%+v, want %d", ev, want)
			}
			if got := n.files[c.op.fd]; got != c.after {
				if c.after == fileDirect && c.op.file == handBlocking && !knowsNowait(c.op.fd) {
					t.Skip("no RWF_NOWAIT here")
				}
				t.Errorf("the file is %d, want %d", got, c.after)
			}
			n.forget(c.op.fd)
			if len(n.files) != 0 || n.last == c.op.fd {
				t.Error("the file is remembered, though its descriptor may become another's")
			}
		})
	}
}

// What is complete at once needs no wake-up, and keeps the thread from asking epoll only so often.
func TestFilesInMemoryWakeNobody(t *testing.T) {
	n := newTestNative(t)
	fd := openFile(t, "/dev/shm", unix.O_DIRECT, 1<<20)
	kick := eventfd(t)
	n.watch(1, kick)
	read := operation{code: opRead, fd: fd, file: handLarge, iov: []unix.Iovec{iovec(alignedBytes(4096, 4096))}}
	n.submit(&read) // finds out that it is on tmpfs
	nextEvent(t, n)
	quiet(t, n)
	drain(t, n.wake)
	signal(t, kick)
	for handed := 1; ; handed++ {
		n.submit(&read)
		must(t, n.wait(true))
		var events [4]event
		count := n.reap(events[:])
		if count == 2 {
			break
		}
		if count != 1 || events[0].kind != eventDone || handed > askEvery {
			t.Fatalf("%d events, the first %+v, after %d reads", count, events[0], handed)
		}
	}
	if drain(t, n.wake) {
		t.Error("the wake eventfd was signalled")
	}
}

// drain takes an eventfd's signals and reports whether there were any.
func drain(t *testing.T, fd int) bool {
	t.Helper()
	_, err := unix.Read(fd, make([]byte, 8))
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	return err == nil
}

// A file that would block is put off, for a worker to do.
func TestWouldBlock(t *testing.T) {
	n := newTestNative(t)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	op := operation{code: opRead, fd: int(r.Fd()), iov: []unix.Iovec{iovec(make([]byte, 8))}}
	n.submit(&op)
	if ev := nextEvent(t, n); ev != (event{kind: eventDone, result: -int32(unix.EAGAIN)}) {
		t.Fatalf("%+v", ev)
	}
	op.async = true
	n.submit(&op)
	quiet(t, n)
	_, err = w.Write(one)
	must(t, err)
	if ev := nextEvent(t, n); ev != (event{kind: eventDone, result: 8}) {
		t.Fatalf("%+v", ev)
	}
}

// What RWF_NOWAIT can't do here, as the kernel says only at completion, is put off, too: a worker's system call has the last word.
func TestRefusedAtCompletion(t *testing.T) {
	fallback, strict := openFile(t, "", unix.O_DIRECT, 1<<20), openFile(t, "", unix.O_DIRECT, 1<<20)
	b := alignedBytes(4096, 4096)
	for _, fd := range []int{fallback, strict} { // there is a block, to ask for which could block
		_, err := unix.Pwrite(fd, b, 0)
		must(t, err)
	}
	for _, c := range []struct {
		name string
		op   operation
		want int32
	}{
		{"from direct to buffered", operation{code: opWrite, fd: fallback, iov: []unix.Iovec{iovec(b)}}, 4096},
		{"what no system call can do", operation{code: opRead, fd: strict, iov: []unix.Iovec{iovec(b[:100])}}, -int32(unix.EINVAL)},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newTestNative(t)
			n.fileOf(c.op.fd)
			if c.op.fd == fallback { // as a file system may do it, unseen
				_, err := unix.FcntlInt(uintptr(fallback), unix.F_SETFL, 0)
				must(t, err)
			}
			n.submit(&c.op)
			if n.queued != 1 {
				t.Fatal("it was not submitted")
			}
			ev := nextEvent(t, n)
			if ev.result > 0 {
				t.Skip("this file system can do that")
			}
			if ev.result != -int32(unix.EAGAIN) {
				t.Fatalf("%+v", ev)
			}
			c.op.async = true // as Engine.completed has it then
			n.submit(&c.op)
			if ev := nextEvent(t, n); ev.result != c.want {
				t.Errorf("%+v, want %d", ev, c.want)
			}
		})
	}
}
