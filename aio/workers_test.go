package aio

import (
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// hangingWorkers are workers whose operations on some descriptors hang until let go.
type hangingWorkers struct {
	*workers
	t       testing.TB
	started chan int // descriptors of operations that began to hang
	letGo   func()   // ends all hanging
	sent    uint64
}

func newHangingWorkers(t testing.TB, capacity int, hangs func(fd int) bool) *hangingWorkers {
	gone := make(chan struct{})
	w := &hangingWorkers{workers: newWorkers(eventfd(t)), t: t, started: make(chan int, 10000),
		letGo: sync.OnceFunc(func() { close(gone) })}
	w.execute = func(op *operation) int32 {
		if hangs(op.fd) {
			w.started <- op.fd
			<-gone
		}
		return int32(op.fd)
	}
	w.resize(capacity)
	t.Cleanup(func() { w.letGo(); w.close() })
	return w
}

// send hands over n operations on a descriptor.
func (w *hangingWorkers) send(fd, n int) {
	for range n {
		w.add(&operation{id: w.sent, code: opSync, fd: fd})
		w.sent++
	}
	w.flush()
}

// await waits for n results, sleeping as an engine does.
func (w *hangingWorkers) await(n int) (got []event) {
	w.t.Helper()
	var events [10]event
	for len(got) < n {
		k := w.reap(events[:])
		got = append(got, events[:k]...)
		if k > 0 || !w.sleep() {
			continue
		}
		poll := []unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}}
		if r, err := unix.Poll(poll, 30000); r != 1 && err != unix.EINTR {
			w.t.Fatalf("%d of %d results, and no wake: %v", len(got), n, err)
		}
		var b [8]byte
		_, _ = unix.Read(w.wake, b[:])
		w.awake()
	}
	return got
}

// hanging waits for n operations to hang, and returns how many on each descriptor.
func (w *hangingWorkers) hanging(n int) map[int]int {
	w.t.Helper()
	on := map[int]int{}
	for range n {
		on[await(w.t, deadline(w.t), w.started, "an operation to begin")]++
	}
	return on
}

// noMore fails if another operation begins to hang: everything that may run already does.
func (w *hangingWorkers) noMore() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.choose(); f != nil || len(w.started) > 0 {
		w.t.Errorf("another operation may start: %d are busy, %d reserved, limit %d", w.busy, w.reserved, w.limit)
	}
}

// A hung disk has hundreds of requests. Another one's are carried out at once, as many at
// the same time as its share is, and so are a third's.
func TestHungFileLeavesWorkers(t *testing.T) {
	const limit = 100
	w := newHangingWorkers(t, limit, func(fd int) bool { return fd < 4 })
	w.send(9, 1) // a file that is known beforehand
	w.await(1)
	w.send(1, 600)
	w.hanging(limit - limit/2/2)
	w.noMore()
	for range 100 {
		w.send(9, 3)
		for _, ev := range w.await(3) {
			if ev.result != 9 {
				t.Fatalf("%+v", ev)
			}
		}
	}
	w.send(2, 600)
	if on := w.hanging(limit / 2 / 3); on[2] != limit/2/3 {
		t.Errorf("%v", on)
	}
	w.noMore()
	w.send(3, 600)
	if on := w.hanging(limit / 2 / 4); on[3] != limit/2/4 {
		t.Errorf("%v", on)
	}
	w.noMore()
	if w.busy > limit+limit/2 {
		t.Errorf("%d workers are busy", w.busy)
	}
	w.letGo()
	w.await(1800)
}

// Alone, a file has all workers but the share of another.
func TestLoneFile(t *testing.T) {
	w := newHangingWorkers(t, 200, func(int) bool { return true })
	w.send(1, 600)
	w.hanging(200)
	w.noMore()
	w.send(2, 600) // it comes late, and has its share all the same
	w.hanging(50)
	w.noMore()
	w.letGo()
	w.await(1200)
	if w.busy != 0 || w.reserved != 2*w.share {
		t.Errorf("%d busy, %d reserved", w.busy, w.reserved)
	}
}

// What a file could always have is the others' once it is forgotten, but not while it has something to do.
func TestForgottenFile(t *testing.T) {
	w := newHangingWorkers(t, 200, func(fd int) bool { return fd == 1 })
	w.send(2, 1)
	w.await(1)
	w.send(1, 150)
	w.hanging(150)
	w.forget(1)
	w.send(1, 450)
	w.noMore()
	w.forget(2)
	w.hanging(50)
	w.noMore()
	w.letGo()
	w.await(600)
}

// A larger limit counts at once.
func TestMoreWorkers(t *testing.T) {
	w := newHangingWorkers(t, minWorkers, func(int) bool { return true })
	w.send(1, 300)
	w.hanging(minWorkers)
	w.noMore()
	w.resize(256)
	w.hanging(256 - minWorkers)
	w.noMore()
	w.resize(1 << 20)
	w.hanging(300 - 256)
	w.letGo()
	w.await(300)
}

// Results come once each, whatever the order, and the sleeping engine is always woken.
func TestWorkersDeliverOnce(t *testing.T) {
	w := newHangingWorkers(t, minWorkers, func(int) bool { return false })
	w.execute = func(op *operation) int32 {
		if op.id%7 == 0 {
			runtime.Gosched()
		}
		return int32(op.fd)
	}
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[uint64]bool{}
	open := 0
	for range 5000 {
		n := 1 + r.IntN(batch)
		w.send(r.IntN(20), n)
		open += n
		take := r.IntN(open + 1)
		if r.IntN(3) == 0 {
			w.resize(minWorkers + r.IntN(1000))
		}
		for _, ev := range w.await(take) {
			if seen[ev.id] {
				t.Fatalf("%+v came twice", ev)
			}
			seen[ev.id] = true
			open--
		}
	}
	for _, ev := range w.await(open) {
		if seen[ev.id] {
			t.Fatalf("%+v came twice", ev)
		}
		seen[ev.id] = true
	}
	if uint64(len(seen)) != w.sent || w.busy != 0 || len(w.active) != 0 {
		t.Errorf("%d of %d results, %d busy, %d active", len(seen), w.sent, w.busy, len(w.active))
	}
}

// Files with requests take turns.
func TestFilesTakeTurns(t *testing.T) {
	w := newHangingWorkers(t, minWorkers, func(int) bool { return false })
	var order []int
	for fd := range 3 {
		f := w.file(fd)
		for i := range 4 {
			f.queue.push(operation{id: uint64(i), fd: fd})
		}
		w.active = append(w.active, f)
	}
	for f := w.choose(); f != nil; f = w.choose() {
		op := w.begin(f)
		order = append(order, op.fd)
		w.finish(f, event{})
	}
	for i, fd := range order {
		if fd != i%3 {
			t.Fatalf("%v", order)
		}
	}
}

// Workers that only a hung disk needed end, those that are needed now and then stay.
func TestIdleWorkersEnd(t *testing.T) {
	w := newHangingWorkers(t, minWorkers, func(fd int) bool { return fd == 1 })
	w.send(1, 50)
	w.hanging(50)
	w.letGo()
	w.await(50)
	workers := func(want int) {
		t.Helper()
		for ctx := deadline(t); ; runtime.Gosched() {
			w.mu.Lock()
			count, idle := w.count, len(w.idle)
			w.mu.Unlock()
			if count == want && idle == want {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%d workers, %d idle, want %d", count, idle, want)
			}
		}
	}
	w.mu.Lock()
	all := w.count
	w.mu.Unlock()
	if all < 50 {
		t.Fatalf("%d workers", all)
	}
	workers(all)
	w.trim() // all were needed since the last time
	workers(all)
	w.trim() // none was
	workers(keepWorkers)
	w.trim()
	w.send(2, 10)
	w.await(10)
}

// Threads that blocked end with the workers.
func TestThreadsEndWithWorkers(t *testing.T) {
	threads := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		must(t, err)
		return len(tasks)
	}
	w := newWorkers(eventfd(t))
	w.resize(300)
	r, pipe, err := os.Pipe()
	must(t, err)
	defer r.Close()
	before := threads()
	var b [1]byte
	for i := range 200 {
		w.add(&operation{id: uint64(i), code: opRead, fd: int(r.Fd()), iov: []unix.Iovec{iovec(b[:])}})
	}
	w.flush()
	for ctx := deadline(t); threads() < 200; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatalf("%d threads", threads())
		}
	}
	must(t, pipe.Close()) // the end of every read
	w.close()
	for ctx := deadline(t); threads() > before+20; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatalf("%d threads, %d before", threads(), before)
		}
	}
	var events [300]event
	if n := w.reap(events[:]); n != 200 {
		t.Errorf("%d results", n)
	}
}
