package aio

import (
	"golang.org/x/sys/unix"
)

// fakeBackend carries operations out on a byte slice, all on the goroutine of the test.
// A script may answer instead, or keep the operation in flight.
type fakeBackend struct {
	t      tester
	disk   []byte
	batch  int                                  // room
	script func(op *operation) (int32, verdict) // nil: everything succeeds

	submitted func(op *operation) // nil: nobody is told

	queued  []operation
	held    []operation
	log     []operation // everything submitted, in order
	events  []event
	kicks   map[uint32]int
	slept   bool
	waits   int
	batches []int // how many operations each wait handed over, if any
	forgot  []int // descriptors
	keepLog bool
	aided   bool
}

type verdict uint8

const (
	succeed verdict = iota // carry it out, at most as far as the number says if it is > 0
	answers                // the number is the result
	hold                   // stay in flight until let go
)

func newFake(t tester, size int) *fakeBackend {
	return &fakeBackend{t: t, disk: make([]byte, size), batch: batch, kicks: map[uint32]int{}, keepLog: true}
}

// engine returns an engine over the backend that the test turns by hand.
func (f *fakeBackend) engine(max int) *Engine {
	e, err := prepareEngine(Config{MaxCapacity: max})
	must(f.t, err)
	must(f.t, e.open(func(limit int) (backend, int, error) { return f, limit, nil }))
	f.t.Cleanup(func() {
		e.closing = true
		e.mail.close()
		e.timer.close()
		must(f.t, unix.Munmap(e.zeroes))
	})
	return e
}

// attach is Attach without another thread.
func attach(t tester, e *Engine, cfg PortConfig) *Port {
	must(t, cfg.validate())
	bounce, err := newBouncePool(cfg.MemoryAlign)
	must(t, err)
	p := newPort(e, cfg, bounce)
	if !e.attach(p) {
		t.Fatal("not attached")
	}
	return p
}

// rest turns the engine until it would sleep.
func (f *fakeBackend) rest(e *Engine) {
	f.t.Helper()
	for range 100000 {
		e.mail.run()
		f.slept = false
		e.turn()
		e.mail.mu.Lock()
		mail := len(e.mail.messages)
		e.mail.mu.Unlock()
		if f.slept && mail == 0 {
			return
		}
	}
	f.t.Fatal("the engine never rests")
}

func (f *fakeBackend) room() int { return f.batch - len(f.queued) }

func (f *fakeBackend) submit(op *operation) {
	if f.room() <= 0 {
		f.t.Fatal("submit without room")
	}
	f.queued = append(f.queued, *op)
	if f.submitted != nil {
		f.submitted(op)
	}
	if f.keepLog {
		f.log = append(f.log, *op)
	}
}

func (f *fakeBackend) watch(id uint32, fd int) { f.kicks[id] = fd }

func (f *fakeBackend) unwatch(id uint32) {
	delete(f.kicks, id)
	f.events = append(f.events, event{kind: eventGone, id: uint64(id)})
}

func (f *fakeBackend) resize(int, int) error { return nil }

func (f *fakeBackend) forget(fd int) { f.forgot = append(f.forgot, fd) }

func (f *fakeBackend) wait(block bool) error {
	f.waits++
	if n := len(f.queued); n > 0 && f.keepLog {
		f.batches = append(f.batches, n)
	}
	for i := range f.queued {
		f.carryOut(&f.queued[i])
	}
	f.queued = f.queued[:0]
	f.slept = block && len(f.events) == 0
	return nil
}

func (f *fakeBackend) carryOut(op *operation) {
	n, v := int32(0), succeed
	if f.script != nil {
		n, v = f.script(op)
	}
	switch v {
	case hold:
		f.held = append(f.held, *op)
	case answers:
		f.answer(op, n)
	case succeed:
		f.answer(op, f.execute(op, int(n)))
	}
}

func (f *fakeBackend) answer(op *operation, result int32) {
	f.events = append(f.events, event{kind: eventDone, id: op.id, result: result})
}

// execute does what the operation asks, at most bytes of it if that isn't 0.
func (f *fakeBackend) execute(op *operation, most int) int32 {
	switch op.code {
	case opSync:
		return 0
	case opAllocate:
		clear(f.disk[op.offset : op.offset+op.length])
		return 0
	}
	length, _ := survey(op.iov, 1)
	n := min(int(length), max(len(f.disk)-int(op.offset), 0))
	if most > 0 {
		n = min(n, most)
	}
	if op.code == opRead {
		scatter(op.iov, f.disk[op.offset:int(op.offset)+n])
	} else {
		gather(f.disk[op.offset:int(op.offset)+n], op.iov)
	}
	return int32(n)
}

// letGo carries out the n oldest held operations.
func (f *fakeBackend) letGo(n int) {
	for _, op := range f.held[:n] {
		f.answer(&op, f.execute(&op, 0))
	}
	f.held = f.held[n:]
}

// signal is a kick.
func (f *fakeBackend) signal(q *portQueue) {
	f.events = append(f.events, event{kind: eventSignal, id: uint64(q.watch)})
}

func (f *fakeBackend) pending() bool { return len(f.events) > 0 }

func (f *fakeBackend) unaided() bool { return !f.aided }

func (f *fakeBackend) reap(events []event) int {
	n := copy(events, f.events)
	f.events = append(f.events[:0], f.events[n:]...)
	return n
}

func (f *fakeBackend) close() error { return nil }
