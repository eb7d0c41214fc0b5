package aio

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// portBurst is the most requests taken from one port before the next one's turn.
	portBurst = 16

	// maxLong is the most flushes, discards and write-zeroes a port may have in flight.
	// They block a thread in the kernel for as long as the disk likes, and the kernel's
	// threads serve all disks. The operation beyond the bound stays at the avail head of its
	// queue, with what is behind it, until one is back; the port's other queues go on.
	maxLong = 8
)

// PortConfig is what a disk attaches with.
type PortConfig struct {
	Name   string  // for logs and errors
	FD     int     // the file or block device; stays open until the port is detached
	Queues []Queue // virtqueues, served in rotation
	Demand int     // requests the queues may hold together: sum of the queue sizes

	// MemoryAlign is what the file asks of the address and length of buffers, in bytes,
	// as O_DIRECT does: others are bounced. A power of two up to 4096; 0 or 1: no need.
	MemoryAlign int

	// Weight is the port's part of the credits beyond the reserves, relative to the
	// others', from 1 to MaxWeight; 0: DefaultWeight.
	Weight int

	Limits Limits  // of this port alone
	Tokens *Tokens // what Limits have left to begin with; nil: the burst
	Group  *Group  // whose limits it shares with others; nil: none

	// Keep is asked, on the engine's thread, about each request of the guest that failed: if it
	// returns true, the request is not answered but kept until Retry. It must not block.
	// nil: failures are answered.
	Keep func(Failure) bool

	// SyncFailed is told, on the engine's thread, that an fdatasync has failed, also one that is kept then or was part of
	// another request. It must not block. nil: nobody asks.
	SyncFailed func(unix.Errno)

	// Held attaches the port with the bound of CausePause at 0: nothing is popped until
	// SetWindow(CausePause, Unlimited).
	Held bool
}

// Failure is a request that the host failed.
type Failure struct {
	Op             Op
	Offset, Length int64 // bytes
	Err            unix.Errno
}

// Port is one disk on the engine. Its fields are the engine thread's, except where they
// never change and except stats.
type Port struct {
	engine *Engine
	name   string
	fd     int
	demand int
	align  int
	stats  portCounters
	tally  tally // what stats lack yet

	queues []*portQueue
	ready  fifo[*portQueue] // those to be looked at: their kicks are disabled
	stuck  fifo[*portQueue] // the same, but at the head is one too many of the long operations

	list       *portList // of the engine's turns it is on; nil: nothing to pop, or not open
	prev, next *Port     // on that list

	weight, reserve, share int      // share.go
	writtenOff             int      // of inFlight
	ages                   slotList // the others

	bounds     [causes]int // window.go
	window     int         // least of bounds
	limiters   []*limiter  // its own and its group's
	limited    [2]bool     // waiting for them, by cause from CauseLimit on
	grace      graceClock
	inFlight   int
	long       int        // of inFlight: flush, discard, write-zeroes
	bounce     bouncePool // bounce.go
	lacks      stepSet    // what the file can't do (zeroes.go)
	handOver   handOver   // inline.go
	mayBlock   int        // uring, with O_DIRECT: requests in flight of which each may take a thread of the kernel's
	elsewhere  int        // of the operations in flight, those that change the file on another thread
	keep       func(Failure) bool
	syncFailed func(unix.Errno) // PortConfig.SyncFailed
	parked     []*slot          // of inFlight: failed, and kept for Retry

	waiters   map[chan struct{}]struct{} // of Idle
	settling  bool                       // in the engine's list of ports to settle
	detaching bool
	watches   int // armed kicks
	onGone    []func()
}

// portQueue is one of a port's queues. It is either ready, and will be looked at, or it lingers
// until the thread sleeps, or its kick is armed.
type portQueue struct {
	Queue
	port      *Port
	watch     uint32
	ready     bool // in Port.ready or Port.stuck
	lingering bool // in Engine.lingering (poll.go)
	dirty     bool // has completions to publish
}

// validate checks what a port is made of.
func (cfg *PortConfig) validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("aio: attach disk %s: %s", cfg.Name, fmt.Sprintf(format, args...))
	}
	switch a := cfg.MemoryAlign; {
	case cfg.FD < 0:
		return fail("bad file descriptor %d", cfg.FD)
	case cfg.Demand < 0:
		return fail("negative demand %d", cfg.Demand)
	case cfg.Weight < 0 || cfg.Weight > MaxWeight:
		return fail("weight %d is not from 1 to %d", cfg.Weight, MaxWeight)
	case a < 0 || a > maxAlign || a&(a-1) != 0:
		return fail("memory alignment %d is not a power of two up to %d", a, maxAlign)
	}
	for i, q := range cfg.Queues {
		if q.KickFD() < 0 {
			return fail("queue %d has no kick eventfd", i)
		}
	}
	if err := cfg.Limits.Validate(); err != nil {
		return fail("%v", err)
	}
	if cfg.Tokens != nil {
		if err := cfg.Tokens.Validate(); err != nil {
			return fail("%v", err)
		}
	}
	return nil
}

var errClosed = errors.New("aio: the engine is closed")

// Attach puts a disk on the engine, whose capacity grows by the port's demand. Every queue
// is looked at once without a kick. Any goroutine but the engine's may call it; it waits
// for the engine.
func (e *Engine) Attach(cfg PortConfig) (*Port, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	bounce, err := newBouncePool(cfg.MemoryAlign)
	if err != nil {
		return nil, fmt.Errorf("aio: attach disk %s: %w", cfg.Name, err)
	}
	p := newPort(e, cfg, bounce)
	var slots []*chunk
	if s := &e.stats; s.demand.Load()+int64(cfg.Demand) > s.capacity.Load() {
		slots = newChunks(min(cfg.Demand, e.limit) + slotChunk)
	} // else they are there
	attached := make(chan bool, 1)
	attach := func() {
		e.slots.spare = slots
		attached <- e.attach(p)
	}
	if e.mail.post(attach) && <-attached {
		return p, nil
	}
	p.bounce.close()
	return nil, errClosed
}

func newPort(e *Engine, cfg PortConfig, bounce bouncePool) *Port {
	p := &Port{
		engine: e, name: cfg.Name, fd: cfg.FD, demand: cfg.Demand, align: max(cfg.MemoryAlign, 1),
		bounce: bounce, handOver: handOverOf(cfg.FD), waiters: make(map[chan struct{}]struct{}), weight: cfg.Weight, keep: cfg.Keep, syncFailed: cfg.SyncFailed,
	}
	if p.weight == 0 {
		p.weight = DefaultWeight
	}
	if !cfg.Limits.none() {
		l := newLimiter(e, CauseLimit, cfg.Limits)
		if cfg.Tokens != nil {
			l.setTokens(*cfg.Tokens, l.iops.at)
		}
		p.limiters = append(p.limiters, l)
	}
	if cfg.Group != nil {
		p.limiters = append(p.limiters, cfg.Group.limiter)
	}
	for c := range p.bounds {
		p.bounds[c] = Unlimited
	}
	if cfg.Held {
		p.bounds[CausePause] = 0
	}
	for _, q := range cfg.Queues {
		p.queues = append(p.queues, &portQueue{Queue: q, port: p})
	}
	return p
}

// attach is Attach on the engine's thread; it reports false if the engine is closing.
func (e *Engine) attach(p *Port) bool {
	if e.closing {
		return false
	}
	e.ports[p] = struct{}{}
	e.resize()
	for c, n := range p.bounds {
		p.setBound(Cause(c), n)
	}
	for _, q := range p.queues {
		q.watch = e.newWatch(q)
		p.watches++
		e.backend.watch(q.watch, q.KickFD())
		q.wake()
	}
	return true
}

// Detach takes the disk off the engine: nothing is popped any more, and what is in flight
// completes. When it has, and the queues have published it, the capacity shrinks by the
// port's demand and done runs, on the engine's thread: it must not wait for the engine.
// From then on the engine touches neither the file nor the queues. done may be nil. On a
// detached port it runs at once, on a closed engine in the caller's goroutine.
// Any goroutine may call Detach. It doesn't wait.
func (p *Port) Detach(done func()) {
	if done == nil {
		done = func() {}
	}
	if !p.engine.mail.post(func() { p.detach(done) }) {
		done()
	}
}

func (p *Port) detach(done func()) {
	if _, attached := p.engine.ports[p]; !attached {
		done()
		return
	}
	p.onGone = append(p.onGone, done)
	if !p.detaching {
		p.detaching = true
		p.engine.schedule(p)
		for _, q := range p.queues {
			p.engine.backend.unwatch(q.watch)
		}
	}
	p.giveUp()
	p.settle()
}

// settled tells those who wait that nothing is in flight, and ends a detached port.
func (p *Port) settled() {
	p.settling = false
	if p.inFlight > len(p.parked) {
		return
	}
	for idle := range p.waiters {
		close(idle)
	}
	clear(p.waiters)
	if _, attached := p.engine.ports[p]; !attached || !p.detaching || p.watches > 0 {
		return
	}
	delete(p.engine.ports, p)
	p.engine.backend.forget(p.fd)
	p.engine.resize()
	bounce := p.bounce
	p.bounce = bouncePool{}
	go bounce.close() // unmapping memory takes time
	for _, done := range p.onGone {
		done()
	}
	p.onGone = nil
}

// wake has the queue looked at.
func (q *portQueue) wake() {
	if q.ready || q.port.detaching {
		return
	}
	q.ready = true
	q.DisableKicks()
	q.port.ready.push(q)
	q.port.engine.schedule(q.port)
}

// open reports whether another request may be popped from the port, as far as the port
// itself is concerned. Whether the next request will need bounce memory is not known
// before it is popped, and then it is too late to wait for any: so a port that may need it
// pops only while a chunk is free. A guest whose buffers all fit never sees that bound.
func (p *Port) open() bool {
	return p.inFlight < min(p.window, p.engine.capacity) && p.bounce.available() && !p.detaching
}

// runnable reports whether a visit would find something to do.
func (p *Port) runnable() bool { return p.ready.len() > 0 && p.open() }

// schedule puts the port on the list of those with the same turn if it has something to pop, and off
// it if it hasn't. It is called whenever something changed that may have changed that.
func (e *Engine) schedule(p *Port) {
	var list *portList
	if p.runnable() {
		list = &e.turns[p.turn()]
	}
	if p.list == list {
		return
	}
	if p.list != nil {
		p.list.remove(p)
	}
	if list != nil {
		list.push(p)
	}
}

// pass takes requests from the ports whose turn it is, a burst from each in rotation, until
// there is no room in the submission queue, no credit, or passBudget is spent. A port that was
// visited goes to the end of its list and so does, within it, the queue: the next credit
// that comes back goes to somebody else.
func (e *Engine) pass() {
	for e.again.len() > 0 && e.backend.room() > 0 {
		e.issue(e.again.pop())
	}
	for left := passBudget; ; {
		p := e.next()
		if p == nil { // of those that wait for a credit, if any do, the time to write off is noted
			if !e.writeOff() {
				return
			}
			continue
		}
		if left <= 0 || e.backend.room() == 0 {
			return
		}
		most := min(left, portBurst)
		if p.turn() == entitled {
			most = min(most, p.share-p.inFlight) // beyond that it borrows, which is not its turn
		}
		p.list.remove(p)
		left -= e.visit(p, most)
		p.post()
		e.schedule(p)
	}
}

// visit looks at a port's ready queues, at most as many times as it says, and returns how often it did.
func (e *Engine) visit(p *Port, most int) int {
	looks := 0
	for looks < most && p.runnable() && e.credit(p) && e.backend.room() > 0 {
		for _, l := range p.limiters {
			if !l.pass(p) {
				return max(looks, 1)
			}
			if l.shared {
				most = 1
			}
		}
		q := p.ready.pop()
		n, done := e.take(q, p.burst(most-looks))
		looks += n
		if !done {
			p.ready.push(q)
		}
	}
	return looks
}

// burst is how many requests may be popped without asking the limiters again.
func (p *Port) burst(most int) int {
	if len(p.limiters) > 0 {
		return 1
	}
	return most
}

// take pops from one queue until that has nothing more to give, or at most as many times as it says.
func (e *Engine) take(q *portQueue, most int) (looks int, done bool) {
	for looks < most && q.port.open() && e.credit(q.port) && e.backend.room() > 0 {
		looks++
		s := e.slots.take(q)
		switch q.Pop(&s.req, q.port.long < maxLong) {
		case Issue:
			long := s.req.Op.Long()
			e.start(s)
			e.feed(q.port)
			if long {
				return looks, false // with these queues take turns one by one
			}
		case Done:
			e.slots.release(s)
			e.touch(q)
		case Stays:
			e.slots.release(s)
			q.port.stuck.push(q)
			return looks, true
		default:
			e.slots.release(s)
			if q.linger() || !q.EnableKicks() {
				q.ready = false
				return looks, true
			}
			q.DisableKicks()
		}
	}
	return looks, false
}

// start begins a popped request. There is room for its first operation.
func (e *Engine) start(s *slot) {
	p := s.queue.port
	e.started(s)
	if classOf(s.req.Op) == classLong {
		p.long++
		p.stats.long.Store(int64(p.long))
		if s.req.Op == Flush {
			p.post() // of what completed just now, too
			s.mark = p.Written()
		}
	}
	for _, l := range p.limiters {
		l.take(&s.req)
	}
	if first, errno := e.prepare(s); errno != 0 || first == stepNone {
		e.finish(s, errno)
	} else {
		s.step = first
		e.issue(s)
	}
}

// finish ends a request: it is answered, or kept because it failed and its port wants that.
func (e *Engine) finish(s *slot, errno unix.Errno) {
	p, r := s.queue.port, &s.req
	if errno != 0 && p.keep != nil && !p.detaching && p.keep(Failure{r.Op, r.Offset, r.Length, errno}) {
		e.park(s, errno)
		return
	}
	e.answer(s, errno)
}

// answer completes a request towards its queue and gives its credit back.
func (e *Engine) answer(s *slot, errno unix.Errno) {
	q, p, c := s.queue, s.queue.port, classOf(s.req.Op)
	n := s.done

	p.owe(s, errno)
	p.count(c, e.now-s.start, n, errno != 0)

	p.bounce.put(s.chunk)
	e.ended(s)
	if c == classLong {
		p.long--
		p.stats.long.Store(int64(p.long))
		for p.stuck.len() > 0 {
			p.ready.push(p.stuck.pop())
		}
		n = 0
	}
	s.uncut()
	q.Complete(&s.req, n, errno)
	e.slots.release(s)
	e.touch(q)
	p.settle()
	e.schedule(p)
}

// touch notes that the queue has something to publish.
func (e *Engine) touch(q *portQueue) {
	if !q.dirty {
		q.dirty = true
		e.dirty.push(q)
	}
}
