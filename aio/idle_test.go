package aio

import (
	"fmt"
	"testing"
)

// wantSleep fails if the engine is woken once it has come to rest. Time passes in which another
// engine works: one that the guest's disk is on.
func wantSleep(e *Engine, g *guest) {
	pass := func(n int) {
		for range n {
			g.do(rw(Read, 0, 0, make([]byte, 512)))
		}
	}
	for before := e.Stats().Enters + 1; before != e.Stats().Enters; {
		before = e.Stats().Enters
		pass(100)
	}
	before := e.Stats().Enters
	pass(2000)
	if n := e.Stats().Enters - before; n != 0 {
		g.t.Errorf("%d wake-ups", n)
	}
}

// With nothing to do the engine's thread sleeps: it enters the kernel once, and stays there.
func TestNoWakeUpsWhenIdle(t *testing.T) { eachEngine(t, testNoWakeUpsWhenIdle) }

func testNoWakeUpsWhenIdle(t *testing.T, cfg Config) {
	idle, busy := newTestEngine(t, cfg), newTestEngine(t, cfg)
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	g, w := newGuest(t), newGuest(t)
	port(t, idle, PortConfig{Name: "idle", FD: fd, Queues: []Queue{g, newGuest(t)}, Demand: 16})
	held := port(t, idle, PortConfig{Name: "held", FD: fd, Queues: []Queue{endless(t)}, Demand: 16, Held: true})
	port(t, busy, PortConfig{Name: "busy", FD: fd, Queues: []Queue{w}, Demand: 16})
	for range 3 {
		g.do(rw(Read, 0, 0, make([]byte, 512)))
		must(t, held.Idle(deadline(t)))
		wantSleep(idle, w)
	}
}

// Whatever an engine did, when nothing is asked of it nothing wakes it.
func TestIdleEngineSleeps(t *testing.T) { eachEngine(t, testIdleEngineSleeps) }

func testIdleEngineSleeps(t *testing.T, cfg Config) {
	cfg.MaxCapacity = 8
	e := newTestEngine(t, cfg)
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	group, err := e.NewGroup("g", Limits{BPS: Rate{PerSecond: 1 << 30}})
	must(t, err)
	for i := range 16 {
		g := newGuest(t)
		p := port(t, e, PortConfig{Name: fmt.Sprint(i), FD: fd, Queues: []Queue{g}, Demand: 64, Limits: Limits{IOPS: Rate{PerSecond: 1000}}, Group: group})
		var calls []<-chan answer
		for range 20 {
			calls = append(calls, g.start(rw(Write, 0, 0, make([]byte, 512))))
		}
		calls = append(calls, g.start(testRequest{Request: Request{Op: Flush}}))
		for _, call := range calls {
			await(t, deadline(t), call, "write")
		}
		must(t, p.Idle(deadline(t)))
	}
	for due := int64(1); due != 0; { // the timer may still be set for what has happened since
		set := make(chan int64, 1)
		e.mail.post(func() { set <- e.timer.due })
		due = await(t, deadline(t), set, "the timer")
	}
	busy, w := newTestEngine(t, cfg), newGuest(t)
	port(t, busy, PortConfig{Name: "busy", FD: fd, Queues: []Queue{w}, Demand: 16})
	wantSleep(e, w)
}
