package aio

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// keepWorkers is how many idle workers are kept for good.
	keepWorkers = 4

	// trimEvery is how often those beyond that are looked at: whoever had nothing to do all
	// that time ends.
	trimEvery = 10 * time.Second
)

// workers carries out operations by ordinary system calls that may block, for the engines
// that have no other way or none for this operation.
//
// A worker is a goroutine with a thread, which waits for work as it waits for a disk: in a
// system call.
//
// Each file has a queue. Workers take from the files in rotation, and a file's operations
// never occupy the last workers:
//
//	limit  = as resize says                        most operations at the same time
//	share  = max(1, limit / 2 / files)             what each file can always have
//	start if the file's busy < share, or all busy + every other file's free share < limit
//
// so that the flush of a fast disk starts at once, however many requests of slow disks
// hang. A file that is new takes its share beside the limit: 1.5 · limit at most.
type workers struct {
	wake    int                    // eventfd to signal if the engine's thread sleeps
	execute func(*operation) int32 // or a test's

	// The engine thread's.
	batch    []operation // added and not handed over yet
	taken    []event     // taken over from done, [next:] still to be reaped
	next     int
	ended    atomic.Bool // done is not empty
	inFlight int         // operations that have not been reaped; the engine thread's
	trimmer  *time.Timer
	all      sync.WaitGroup

	mu       sync.Mutex
	limit    int
	share    int
	files    map[int]*workFile // by descriptor: those used, until they are forgotten
	active   []*workFile       // those with something queued
	turn     int               // in active: whose turn it is
	busy     int               // operations being carried out
	reserved int               // Σ over files of max(0, share - busy)
	idle     []*worker
	count    int  // workers there are, but for those told to end
	least    int  // least len(idle) since the last trim
	waking   bool // a worker is on its way to take something
	sleeping bool // the engine's thread wants to be woken
	closed   bool
	done     []event
}

type worker struct {
	wake  bell
	quit  bool
	isNew bool // not started yet
}

type workFile struct {
	queue fifo[operation]
	busy  int
}

func newWorkers(wake int) *workers {
	w := &workers{wake: wake, execute: execute, limit: minWorkers, files: make(map[int]*workFile)}
	w.trimmer = time.AfterFunc(trimEvery, w.trim)
	w.trimmer.Stop()
	return w
}

// add takes an operation; it is handed over with the next flush.
func (w *workers) add(op *operation) {
	w.batch = append(w.batch, *op)
	w.inFlight++
}

// flush hands over what was added.
func (w *workers) flush() {
	if len(w.batch) == 0 {
		return
	}
	w.mu.Lock()
	for i := range w.batch {
		op := &w.batch[i]
		f := w.file(op.fd)
		if f.queue.len() == 0 {
			w.active = append(w.active, f)
		}
		f.queue.push(*op)
	}
	next := w.summon()
	w.mu.Unlock()
	w.call(next)
	clear(w.batch)
	w.batch = w.batch[:0]
}

// file returns a file's record.
func (w *workers) file(fd int) *workFile {
	f := w.files[fd]
	if f == nil {
		f = &workFile{}
		w.files[fd] = f
		w.divide()
	}
	return f
}

// divide works out the shares.
func (w *workers) divide() {
	w.share = max(1, w.limit/2/max(len(w.files), 1))
	w.reserved = 0
	for _, f := range w.files {
		w.reserved += max(0, w.share-f.busy)
	}
}

// resize sets the limit.
func (w *workers) resize(limit int) {
	w.mu.Lock()
	w.limit = limit
	w.divide()
	next := w.summon()
	w.mu.Unlock()
	w.call(next)
}

// forget gives the others a file's share, unless another disk is the same file and has something to do.
func (w *workers) forget(fd int) {
	w.mu.Lock()
	var next *worker
	if f := w.files[fd]; f != nil && f.busy == 0 && f.queue.len() == 0 {
		delete(w.files, fd)
		w.divide()
		next = w.summon()
	}
	w.mu.Unlock()
	w.call(next)
}

// sleep reports whether the engine's thread may sleep, and has the wake eventfd signalled
// when there is something to reap again.
func (w *workers) sleep() bool {
	if w.pending() {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sleeping = len(w.done) == 0
	return w.sleeping
}

// awake ends what sleep began: no signals are wanted.
func (w *workers) awake() {
	w.mu.Lock()
	w.sleeping = false
	w.mu.Unlock()
}

// pending reports whether there is something to reap.
func (w *workers) pending() bool { return w.next < len(w.taken) || w.ended.Load() }

// reap stores the results of operations and returns how many.
func (w *workers) reap(events []event) int {
	n := 0
	for {
		c := copy(events[n:], w.taken[w.next:])
		w.next += c
		w.inFlight -= c
		n += c
		if n == len(events) || !w.ended.Load() {
			return n
		}
		w.mu.Lock()
		w.taken, w.done = w.done, w.taken[:0]
		w.ended.Store(false)
		w.mu.Unlock()
		w.next = 0
	}
}

// close ends all workers.
//
// Preconditions: no operation is in flight.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.trimmer.Stop()
	for _, idle := range w.idle {
		idle.quit = true
		idle.wake.ring()
	}
	w.idle = nil
	w.mu.Unlock()
	w.all.Wait()
}

// work is a worker's life.
func (w *workers) work(me *worker) {
	defer w.all.Done()
	// The thread this last runs on ends with it: threads that hung disks once made the
	// process start don't stay for ever.
	defer runtime.LockOSThread()
	var op operation
	var wake bool // the engine must be woken
	w.mu.Lock()
	w.waking = false
	for {
		f := w.choose()
		var next *worker
		switch {
		case f != nil:
			op = w.begin(f)
			next = w.summon()
		case !w.closed && !me.quit:
			w.idle = append(w.idle, me)
		default:
			w.mu.Unlock()
			w.signal(wake)
			return
		}
		w.mu.Unlock()
		w.signal(wake)
		w.call(next)
		if f == nil {
			wake, op = false, operation{}
			me.wake.wait()
			w.mu.Lock()
			w.waking = w.waking && me.quit // unless it was woken to quit, it has come
			continue
		}
		ev := event{kind: eventDone, id: op.id, result: w.execute(&op)}
		w.mu.Lock()
		wake = w.finish(f, ev)
	}
}

func (w *workers) signal(wake bool) {
	if wake {
		_, _ = unix.Write(w.wake, one)
	}
}

// choose returns the file the next operation is taken from, or nil if none may start.
func (w *workers) choose() *workFile {
	for range w.active {
		if w.turn >= len(w.active) {
			w.turn = 0
		}
		if f := w.active[w.turn]; w.mayStart(f) {
			return f
		}
		w.turn++
	}
	return nil
}

func (w *workers) mayStart(f *workFile) bool {
	return f.busy < w.share || w.busy+w.reserved < w.limit
}

// begin takes the operation whose turn it is, from the file that choose returned.
func (w *workers) begin(f *workFile) operation {
	op := f.queue.pop()
	if f.queue.len() == 0 {
		last := len(w.active) - 1
		copy(w.active[w.turn:], w.active[w.turn+1:])
		w.active[last] = nil
		w.active = w.active[:last]
	} else {
		w.turn++
	}
	if f.busy < w.share {
		w.reserved--
	}
	f.busy++
	w.busy++
	return op
}

// finish accounts for an operation, and reports whether the engine must be woken.
func (w *workers) finish(f *workFile, ev event) bool {
	f.busy--
	w.busy--
	if f.busy < w.share {
		w.reserved++
	}
	w.done = append(w.done, ev)
	w.ended.Store(true)
	wake := w.sleeping
	w.sleeping = false
	return wake
}

// summon returns a worker to be called if there is something for one to take, nil if not.
// Whoever comes and finds more calls the next: as many work as are needed, and operations that
// don't block are done by a few.
func (w *workers) summon() *worker {
	if w.waking || w.choose() == nil {
		return nil
	}
	w.waking = true
	if n := len(w.idle); n > 0 {
		next := w.idle[n-1]
		w.idle[n-1] = nil
		w.idle = w.idle[:n-1]
		w.least = min(w.least, n-1)
		return next
	}
	w.least = 0
	w.count++
	w.all.Add(1)
	if w.count == keepWorkers+1 {
		w.trimmer.Reset(trimEvery)
	}
	return &worker{isNew: true}
}

// call has a worker come. w.mu is not held, for it will want that.
func (w *workers) call(next *worker) {
	switch {
	case next == nil:
	case next.isNew:
		next.isNew = false
		go w.work(next)
	default:
		next.wake.ring()
	}
}

// trim ends the workers nobody needed since the last time.
func (w *workers) trim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	n := max(0, min(w.least, w.count-keepWorkers))
	for _, idle := range w.idle[:n] { // the longest idle first
		idle.quit = true
		idle.wake.ring()
	}
	left := copy(w.idle, w.idle[n:])
	clear(w.idle[left:])
	w.idle = w.idle[:left]
	w.count -= n
	w.least = left
	if w.count > keepWorkers {
		w.trimmer.Reset(trimEvery)
	}
}
