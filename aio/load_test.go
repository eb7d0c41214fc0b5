package aio

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// Many producers on many queues, kicking only when asked to: no request is forgotten, and
// each is answered once. All the while the windows open and close.
func TestKickRaces(t *testing.T) { eachEngine(t, testKickRaces) }

func testKickRaces(t *testing.T, cfg Config) {
	const ports, queues, producers, each = 3, 2, 2, 3000
	cfg.MaxCapacity = 5
	e := newTestEngine(t, cfg)
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	var wg, windows sync.WaitGroup
	stop := make(chan struct{})
	for i := range ports {
		var qs []Queue
		for range queues {
			g := newGuest(t)
			qs = append(qs, g)
			for range producers {
				wg.Go(func() {
					b := make([]byte, 512)
					for range each / 10 {
						var calls [10]<-chan answer
						for j := range calls {
							calls[j] = g.start(rw(Read, 0, 512, b))
						}
						for _, call := range calls {
							select {
							case a := <-call:
								if a.err != 0 || a.n != 512 {
									t.Errorf("%v", a)
								}
							case <-g.ctx.Done():
								t.Error("a request was forgotten")
								return
							}
						}
					}
				})
			}
		}
		p := port(t, e, PortConfig{Name: fmt.Sprint(i), FD: fd, Queues: qs, Demand: 256})
		windows.Go(func() {
			defer p.SetWindow(CausePause, Unlimited)
			for n := 0; ; n++ {
				p.SetWindow(CausePause, n%4)
				if n%4 == 0 {
					if err := p.Idle(deadline(t)); err != nil {
						t.Error(err)
					}
					continue
				}
				// Time for a request, or a window could be opened and closed at once for ever.
				for before := p.Stats().Read.Requests; p.Stats().Read.Requests == before; runtime.Gosched() {
					select {
					case <-stop:
						return
					default:
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	windows.Wait()
}

// A held and idle port moves nothing, whatever its guests do.
func TestPauseUnderLoad(t *testing.T) { eachEngine(t, testPauseUnderLoad) }

func testPauseUnderLoad(t *testing.T, cfg Config) {
	e := newTestEngine(t, cfg)
	q, other := endless(t), endless(t)
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	p := port(t, e, PortConfig{Name: "a", FD: fd, Queues: []Queue{q}, Demand: 64})
	o := port(t, e, PortConfig{Name: "b", FD: fd, Queues: []Queue{other}, Demand: 64})
	ctx := deadline(t)
	progress := func(p *Port) {
		t.Helper()
		for before := p.Stats().Read.Requests; p.Stats().Read.Requests < before+100; runtime.Gosched() {
			if ctx.Err() != nil {
				t.Fatal("no progress")
			}
		}
	}
	for range 30 {
		p.SetWindow(CausePause, 0)
		must(t, p.Idle(ctx))
		q.mu.Lock()
		pops, answered, published := q.pops, len(q.answers), q.published
		q.mu.Unlock()
		if answered != published {
			t.Fatalf("%d answers, %d published", answered, published)
		}
		progress(o)
		q.mu.Lock()
		if q.pops != pops || len(q.answers) != answered {
			t.Fatal("the port moved while it was held")
		}
		q.mu.Unlock()
		if s := p.Stats(); s.InFlight != 0 || s.Window != 0 {
			t.Fatalf("%+v", s)
		}
		p.SetWindow(CausePause, Unlimited)
		progress(p)
	}
}

func TestAttachAndDetachUnderLoad(t *testing.T) { eachEngine(t, testAttachAndDetachUnderLoad) }

func testAttachAndDetachUnderLoad(t *testing.T, cfg Config) {
	e := newTestEngine(t, cfg)
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	q := endless(t)
	steady := port(t, e, PortConfig{Name: "steady", FD: fd, Queues: []Queue{q}, Demand: 64})
	var wg sync.WaitGroup
	for i := range 4 {
		q1, q2 := endless(t), endless(t)
		wg.Go(func() {
			for n := range 100 {
				p, err := e.Attach(PortConfig{Name: fmt.Sprint(i), FD: fd, Queues: []Queue{q1, q2}, Demand: 10 + 100*n, MemoryAlign: 512})
				if err != nil {
					t.Error(err)
					return
				}
				gone := make(chan struct{})
				p.Detach(func() { close(gone) })
				select {
				case <-gone:
				case <-time.After(30 * time.Second):
					t.Error("detach takes for ever")
					return
				}
				if s := p.Stats(); s.InFlight != 0 {
					t.Errorf("%+v", s)
				}
			}
		})
	}
	wg.Wait()
	detach(t, steady)
	if s := e.Stats(); s.Demand != 0 || s.Capacity != minCapacity {
		t.Errorf("%+v", s)
	}
	if steady.Stats().Read.Requests == 0 {
		t.Error("the steady disk did nothing")
	}
}

// Everything at once on a closing engine: nobody waits for ever.
func TestCloseRaces(t *testing.T) { eachEngine(t, testCloseRaces) }

func testCloseRaces(t *testing.T, cfg Config) {
	for range 50 {
		e, err := New(cfg)
		must(t, err)
		q := endless(t)
		fd := openFile(t, "/dev/shm", 0, 1<<20)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				p, err := e.Attach(PortConfig{Name: "a", FD: fd, Queues: []Queue{q}, Demand: 1})
				if err != nil {
					return
				}
				p.SetWindow(CausePause, 0)
				if err := p.Idle(deadline(t)); err != nil {
					t.Error(err)
				}
				p.Detach(nil)
				if err := p.Idle(deadline(t)); err != nil {
					t.Error(err)
				}
			})
		}
		for e.Close() != nil {
			runtime.Gosched()
		}
		wg.Wait()
	}
}
