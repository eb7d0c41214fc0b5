package aio

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// passBudget bounds the looks at queues in one pass: a guest can have requests answered
// without a kernel request for ever, and completions must not wait for that.
const passBudget = 4 * batch

// Config is what an engine is made with. The zero value works.
type Config struct {
	// MaxCapacity is the most requests in flight, all ports together.
	// 0, and anything beyond it, means 32768.
	MaxCapacity int

	Engine EngineKind // the zero value: io_uring, or the next best where it is refused

	Log *slog.Logger // nil: silent
}

// Engine carries out the requests of every attached port, on one thread of its own.
// Its fields are that thread's, except mail, stats, and what never changes.
type Engine struct {
	log     *slog.Logger
	mail    *mailbox
	stats   engineCounters
	stopped chan struct{} // closed when the thread has ended
	check   bool          // EBB_CHECK

	backend backend
	kind    EngineKind // the backend's; doesn't change once New has returned
	thread  int        // nor does its id
	limit   int        // most credits
	workers int        // most threads for what blocks; with io_uring, of each kind
	closing bool

	threadRoom  int    // threads that may still be started, as of New
	threadBound string // because of this

	ports map[*Port]struct{}
	slots slotTable
	now   int64 // time of this turn, on the timer's clock
	timer timer
	timed []*limiter // those that wait for a time to come

	// Credits: share.go.
	expected   int // demand of ports to come
	capacity   int
	backed     int   // what the slots and the backend are made for; at least capacity + writtenOff
	inFlight   int   // requests that have been popped and not completed
	queued     int   // operations issued since the kernel was last entered
	writtenOff int   // of those, how many don't count against the capacity
	setAside   int   // free credits kept for ports that use less than their reserve
	lent       int   // credits that ports have beyond their share
	usual      int64 // moving average of a request's time in flight, nanoseconds
	turns      [turns]portList

	again    fifo[*slot]      // requests whose next operation waits for room
	dirty    fifo[*portQueue] // queues with completions to publish
	settling fifo[*Port]      // ports whose last request has completed

	forGuest, forDisk lookout      // poll.go
	lingering         []*portQueue // what is looked at

	watches []*portQueue // by watch id; nil: free, or the mailbox's
	op      operation    // scratch: what is being submitted
	events  [256]event   // scratch: what is being reaped
	zeroes  []byte       // zeroes.go
}

// Watch ids of the engine's own; the queues' come after them.
const (
	mailWatch = iota
	timerWatch
	queueWatches
)

// New makes an engine and starts its thread. An engine the host refuses is an error that
// says how to allow it, but for EngineUring: the next best is used then, and the log says so.
func New(cfg Config) (*Engine, error) {
	e, err := prepareEngine(cfg)
	if err != nil {
		return nil, err
	}
	e.forGuest.most, e.forDisk.most = pollGuest, pollDisk
	opened := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it the ring's
		// tie to the thread that made it.
		runtime.LockOSThread()
		_ = os.WriteFile("/proc/thread-self/comm", []byte("ebb-engine"), 0) // for top and perf
		defer close(e.stopped)
		e.thread = unix.Gettid()
		err := e.open(e.choose)
		opened <- err
		if err == nil {
			e.run()
		}
	}()
	if err := <-opened; err != nil {
		<-e.stopped
		e.mail.close()
		e.timer.close()
		_ = unix.Munmap(e.zeroes)
		return nil, err
	}
	return e, nil
}

func prepareEngine(cfg Config) (*Engine, error) {
	if cfg.MaxCapacity < 0 {
		return nil, fmt.Errorf("aio: negative capacity %d", cfg.MaxCapacity)
	}
	if int(cfg.Engine) >= len(openers) {
		return nil, fmt.Errorf("aio: there is no %v", cfg.Engine)
	}
	e := &Engine{
		log:     cfg.Log,
		kind:    cfg.Engine,
		stopped: make(chan struct{}),
		check:   os.Getenv("EBB_CHECK") == "1",
		limit:   min(cfg.MaxCapacity, maxCapacity),
		ports:   make(map[*Port]struct{}),
		watches: make([]*portQueue, queueWatches),
	}
	if e.limit == 0 {
		e.limit = maxCapacity
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.threadRoom, e.threadBound = threadRoom()
	err := enoughThreads(e.threadRoom, e.threadBound)
	if err != nil {
		return nil, err
	}
	if e.zeroes, err = newZeroes(); err != nil {
		return nil, fmt.Errorf("aio: map zeroes: %w", err)
	}
	if e.timer, err = newTimer(); err != nil {
		_ = unix.Munmap(e.zeroes)
		return nil, err
	}
	if e.mail, err = newMailbox(); err != nil {
		e.timer.close()
		_ = unix.Munmap(e.zeroes)
		return nil, err
	}
	e.now = e.timer.now()
	return e, nil
}

// open makes the backend and arms the mailbox in it.
func (e *Engine) open(open opener) error {
	b, limit, err := open(e.limit)
	if err != nil {
		return err
	}
	if limit < e.limit {
		e.log.Warn("not enough kernel memory for the engine's full capacity", "wanted", e.limit, "have", limit)
	}
	e.backend, e.limit, e.workers = b, limit, e.kind.workersIn(e.threadRoom)
	if e.workers < maxWorkers {
		e.log.Warn("disk requests that block will have fewer threads than they could use", "threads", e.workers, "of", maxWorkers, "bound", e.threadBound)
	}
	e.backend.watch(mailWatch, e.mail.wake)
	e.backend.watch(timerWatch, e.timer.fd)
	e.resize()
	return nil
}

// Thread is the id of the engine's thread, gettid(2)'s. Any goroutine.
func (e *Engine) Thread() int { return e.thread }

// Close ends the engine and waits for its thread. Every port must have been detached, and
// Close fails if one is not gone yet: the kernel would go on writing into guest memory, for
// closing a ring does not cancel what is in it. Any goroutine but the engine's may call it,
// more than once.
func (e *Engine) Close() error {
	closed := make(chan error, 1)
	if e.mail.post(func() { closed <- e.close() }) {
		if err := <-closed; err != nil {
			return err
		}
	}
	<-e.stopped
	return nil
}

func (e *Engine) close() error {
	for p := range e.ports {
		return fmt.Errorf("aio: close: %d disks are still attached, %s among them", len(e.ports), p.name)
	}
	e.closing = true
	return nil
}

// run is the engine's thread.
func (e *Engine) run() {
	for !e.closing {
		e.turn()
	}
	e.mail.close()
	e.settle()
	if err := e.backend.close(); err != nil {
		e.log.Warn("closing the engine", "err", err)
	}
	e.timer.close()
	_ = unix.Munmap(e.zeroes)
}

// turn is one round of the loop: take what may be taken, submit it, sleep if there is
// nothing else to do, and complete what has come. Completions are published before new
// requests are popped, and again what the queues answered by themselves before sleeping.
func (e *Engine) turn() {
	e.pass()
	e.publish()
	e.settle()
	if e.check {
		e.verify()
	}
	e.stats.inFlight.Store(int64(e.inFlight))
	e.stats.lent.Store(int64(e.lent))
	e.stats.writtenOff.Store(int64(e.writtenOff))
	e.await(!e.busy())
	e.reap()
	e.publish()
}

// enter enters the kernel.
func (e *Engine) enter(block bool) {
	e.stats.enters.Add(1)
	e.queued = 0
	if err := e.backend.wait(block); err != nil {
		// Not a disk's error: the ring itself is unusable, and with it every request in it.
		panic(err)
	}
}

// feed hands over what is queued, of the port's requests among others, as soon as it is as much
// as the kernel already has: after 2 requests, 2 more, 4, 8 and so on up to a batch. So a device
// that has nothing to do begins with the first requests while the thread pops the others. A large
// batch would hold them back: the kernel keeps what one system call submits together until the
// last of it is ready. Files in memory and other threads have no such use of the time.
func (e *Engine) feed(p *Port) {
	const least = 2 // the kernel's own bound: so many it does not hold back
	if e.queued >= least && 2*e.queued >= e.inFlight && p.handOver <= handBuffered && e.backend.unaided() {
		e.enter(false)
	}
}

// busy reports whether there is something to do without any event. A port that only lacks
// a credit is woken by the completion that brings one.
func (e *Engine) busy() bool {
	return e.again.len() > 0 || e.next() != nil
}

// reap handles what has come.
func (e *Engine) reap() {
	for {
		n := e.backend.reap(e.events[:])
		for i := range e.events[:n] {
			e.handle(&e.events[i])
		}
		if n < len(e.events) {
			return
		}
	}
}

func (e *Engine) handle(ev *event) {
	switch ev.kind {
	case eventDone:
		s := e.slots.find(ev.id)
		if s == nil {
			panic(fmt.Sprintf("aio: completion of unknown request %#x", ev.id))
		}
		e.completed(s, ev.result)
		return
	case eventNoRoom:
		e.warnUnbacked(setupError(e.backed, unix.Errno(-ev.result)))
		return
	}
	id := uint32(ev.id)
	switch id {
	case mailWatch:
		e.mail.run()
		return
	case timerWatch:
		e.expire()
		return
	}
	switch q := e.watches[id]; ev.kind {
	case eventSignal:
		q.wake()
	case eventBroken:
		e.log.Error("a queue's kicks are lost", "disk", q.port.name, "err", unix.Errno(-ev.result))
	case eventGone:
		e.watches[id] = nil
		q.port.watches--
		q.port.settle()
	}
}

// newWatch finds a free watch id.
func (e *Engine) newWatch(q *portQueue) uint32 {
	for id := queueWatches; id < len(e.watches); id++ {
		if e.watches[id] == nil {
			e.watches[id] = q
			return uint32(id)
		}
	}
	e.watches = append(e.watches, q)
	return uint32(len(e.watches) - 1)
}

// publish makes completions visible to the guests.
func (e *Engine) publish() {
	for e.dirty.len() > 0 {
		q := e.dirty.pop()
		q.dirty = false
		q.port.post()
		q.expect()
		q.Publish()
	}
}

// settle tells those who wait for a port to have nothing in flight. Everything is published.
func (e *Engine) settle() {
	for e.settling.len() > 0 {
		e.settling.pop().settled()
	}
}
