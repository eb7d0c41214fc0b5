package aio

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// model drives an engine over a fake backend with whatever can happen, in any order, and
// keeps its own books: what each guest asked for, what it was answered, which windows are set.
type model struct {
	t       *rapid.T
	f       *fakeBackend
	e       *Engine
	clock   int64
	alarm   int64 // of the engine's timer; 0: not set
	disks   []*modelDisk
	nextTag uint32
	serial  int
}

type modelDisk struct {
	port     *Port
	queue    *testQueue
	name     string
	demand   int
	window   [CauseLimit]int // as last set
	limited  bool
	owed     map[uint32]bool // asked for, not answered
	detached bool
}

func newModel(t *rapid.T) *model {
	m := &model{t: t, f: newFake(t, 1<<16), clock: 1000 * millisecond}
	m.f.keepLog = false
	known := map[uint64]bool{}
	m.f.script = holdAll
	m.f.submitted = func(op *operation) {
		if n := m.e.active(); n > m.e.capacity && !known[op.id] { // what goes on may, after the capacity has shrunk
			t.Fatalf("%d requests count against a capacity of %d", n, m.e.capacity)
		}
		if !known[op.id] {
			m.checkReserves(op.fd)
		}
		known[op.id] = true
	}
	m.e = m.f.engine(rapid.SampledFrom([]int{0, 1, 3, 8, 64, 100}).Draw(t, "aio-max"))
	m.e.check = true
	m.e.timer.now = func() int64 { return m.clock }
	m.e.timer.arm = func(in int64) { m.alarm = m.clock + in }
	m.e.now = m.clock
	return m
}

func (m *model) pick(label string) *modelDisk {
	if len(m.disks) == 0 {
		m.t.Skip("no disk")
	}
	return rapid.SampledFrom(m.disks).Draw(m.t, label)
}

// settle lets the engine do what it can, and checks what the guests were answered.
func (m *model) settle() {
	m.f.rest(m.e)
	for _, d := range m.disks {
		for _, a := range d.queue.take() {
			if !d.owed[a.tag] {
				m.t.Fatalf("disk %s: request %d was answered twice, or never made", d.name, a.tag)
			}
			delete(d.owed, a.tag)
		}
	}
}

func (m *model) attach(t *rapid.T) {
	if len(m.disks) == 6 {
		t.Skip("enough disks")
	}
	m.serial++
	d := &modelDisk{queue: newTestQueue(m.t), owed: map[uint32]bool{}, name: fmt.Sprint(m.serial)}
	for c := range d.window {
		d.window[c] = Unlimited
	}
	cfg := PortConfig{
		Name: d.name, FD: m.serial, Queues: []Queue{d.queue},
		Demand: rapid.IntRange(0, 200).Draw(t, "demand"),
		Weight: rapid.SampledFrom([]int{0, 1, 100, MaxWeight}).Draw(t, "weight"),
	}
	if rapid.IntRange(0, 3).Draw(t, "limited") == 0 {
		cfg.Limits.IOPS = Rate{PerSecond: rapid.Int64Range(1, 5000).Draw(t, "iops")}
		d.limited = true
	}
	if rapid.Bool().Draw(t, "keep") {
		cfg.Keep = func(Failure) bool { return true }
	}
	d.demand = cfg.Demand
	d.port = attach(m.f.t, m.e, cfg)
	m.disks = append(m.disks, d)
}

func (m *model) detach(*rapid.T) {
	d := m.pick("detach")
	if !d.detached {
		d.detached = true
		d.port.Detach(nil)
	}
}

func (m *model) ask(t *rapid.T) {
	d := m.pick("ask")
	n := rapid.IntRange(1, 100).Draw(t, "requests")
	b := make([]byte, 512)
	for range n {
		m.nextTag++
		r := rw(Read, m.nextTag, 0, b)
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			r = testRequest{Request: Request{Op: Flush, Tag: m.nextTag}}
		case 1:
			r = rw(Write, m.nextTag, 0, b)
		}
		d.owed[m.nextTag] = true
		d.queue.add(r)
	}
	if !d.detached {
		m.f.signal(d.port.queues[0])
	}
}

func (m *model) complete(t *rapid.T) {
	if len(m.f.held) == 0 {
		t.Skip("nothing in flight")
	}
	for range rapid.IntRange(1, 40).Draw(t, "completions") {
		if len(m.f.held) == 0 {
			return
		}
		i := rapid.IntRange(0, len(m.f.held)-1).Draw(t, "which")
		op := m.f.held[i]
		m.f.held = append(m.f.held[:i], m.f.held[i+1:]...)
		length, _ := survey(op.iov, 1) // 0 for a flush
		result := int32(length)
		switch rapid.IntRange(0, 9).Draw(t, "result") {
		case 0:
			result = -int32(unix.EIO)
		case 1:
			result = -int32(unix.EAGAIN)
		case 2:
			result = min(result, 100) // short
		}
		m.f.answer(&op, result)
	}
}

func (m *model) pass(t *rapid.T) {
	m.clock += rapid.SampledFrom([]int64{microsecond, millisecond, 6 * millisecond, 100 * millisecond, 2 * second}).Draw(t, "time")
	m.e.now = m.clock
	if m.alarm != 0 && m.alarm <= m.clock {
		m.alarm = 0
		m.f.events = append(m.f.events, event{kind: eventSignal, id: timerWatch})
	}
}

func (m *model) window(t *rapid.T) {
	d := m.pick("window")
	for range rapid.IntRange(1, 3).Draw(t, "changes") { // the last one counts
		c := Cause(rapid.IntRange(0, int(CauseLimit)-1).Draw(t, "cause"))
		d.window[c] = rapid.SampledFrom([]int{0, 1, 2, 17, Unlimited}).Draw(t, "bound")
		d.port.SetWindow(c, d.window[c])
	}
}

func (m *model) retry(*rapid.T) { m.pick("retry").port.Retry() }

// check is what must hold whenever the engine rests.
func (m *model) check(t *rapid.T) {
	m.settle()
	e := m.e
	demand, setAside := 0, 0
	var left []*modelDisk
	for _, d := range m.disks {
		if _, attached := e.ports[d.port]; !attached {
			continue // what it was not popped from stays with its guest
		}
		left = append(left, d)
		demand += d.demand
		setAside += max(d.port.reserve-d.port.inFlight, 0)
		for c, n := range d.window {
			if d.port.bounds[c] != n {
				t.Fatalf("disk %s: bound %v is %d, want %d", d.name, Cause(c), d.port.bounds[c], n)
			}
		}
		if d.detached && d.port.inFlight == len(d.port.parked) {
			t.Fatalf("disk %s has nothing in flight and is not gone", d.name)
		}
		if d.port.reserve > d.port.share || d.port.share > d.demand {
			t.Fatalf("disk %s: reserve %d, share %d, demand %d", d.name, d.port.reserve, d.port.share, d.demand)
		}
	}
	m.disks = left
	if want := capacityFor(demand, e.limit); e.capacity != want {
		t.Fatalf("capacity %d for a demand of %d, want %d", e.capacity, demand, want)
	}
	for _, d := range m.disks {
		m.checkIdleCredits(t, d, e.capacity-e.active()-setAside)
	}
}

// checkIdleCredits fails if a disk waits while there is a credit it may have.
func (m *model) checkIdleCredits(t *rapid.T, d *modelDisk, pool int) {
	p := d.port
	window := min(d.window[CausePause], d.window[CauseDrain])
	if d.queue.waiting() == 0 || d.detached || p.inFlight >= window || p.long >= maxLong && d.queue.next().Op.Long() || p.bounds[CauseLimit] == 0 && d.limited {
		return
	}
	if p.inFlight < p.reserve && m.e.active() < m.e.capacity {
		t.Fatalf("disk %s waits with %d in flight of a reserve of %d", d.name, p.inFlight, p.reserve)
	}
	if pool > 0 && p.inFlight < m.e.capacity {
		t.Fatalf("disk %s waits beside %d free credits", d.name, pool)
	}
}

// checkReserves fails if a disk that has used up its own reserve was just given a credit that is
// kept for another.
func (m *model) checkReserves(fd int) {
	setAside, beyond := 0, false
	for p := range m.e.ports {
		setAside += max(p.reserve-p.inFlight, 0)
		beyond = beyond || p.fd == fd && p.inFlight > p.reserve
	}
	if beyond && m.e.active()+setAside > m.e.capacity {
		m.t.Fatalf("%d requests and %d credits of reserves are more than the capacity, %d", m.e.active(), setAside, m.e.capacity)
	}
}

// end lets everything complete, detaches all disks, and looks at what is left.
func (m *model) end() {
	for _, d := range m.disks {
		for c := range d.window {
			d.port.SetWindow(Cause(c), Unlimited)
		}
		d.port.Detach(nil)
	}
	for round := 0; len(m.e.ports) > 0; round++ {
		if round > 1000 {
			m.t.Fatalf("%d disks don't go", len(m.e.ports))
		}
		m.settle()
		for _, op := range m.f.held {
			m.f.answer(&op, m.f.execute(&op, 0))
		}
		m.f.held = m.f.held[:0]
	}
	e := m.e
	if e.inFlight != 0 || e.writtenOff != 0 || e.lent != 0 || e.setAside != 0 || e.capacity != min(minCapacity, e.limit) || e.backed != e.capacity ||
		len(e.slots.chunks) != 1 || e.next() != nil {
		m.t.Fatalf("left: %d in flight, %d written off, %d lent, %d set aside, capacity %d, %d backed, %d chunks of slots",
			e.inFlight, e.writtenOff, e.lent, e.setAside, e.capacity, e.backed, len(e.slots.chunks))
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		m.attach(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"":         m.check,
			"attach":   m.attach,
			"detach":   m.detach,
			"ask":      m.ask,
			"complete": m.complete,
			"pass":     m.pass,
			"window":   m.window,
			"retry":    m.retry,
		})
		m.end()
	})
}
