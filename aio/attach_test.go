package aio

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// Disks come and go, all with requests of their own, while one works on: nothing is lost or
// answered twice, and afterwards the engine is what it was.
func TestAttachUnderLoad(t *testing.T) { eachEngine(t, testAttachUnderLoad) }

func testAttachUnderLoad(t *testing.T, cfg Config) {
	const others, demand, rounds = 31, 256, 6
	e := newTestEngine(t, cfg)
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	steady := newGuest(t)
	p := port(t, e, PortConfig{Name: "steady", FD: fd, Queues: []Queue{steady}, Demand: demand})
	must(t, p.Idle(deadline(t)))
	before := e.Stats()

	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 { // requests in flight at any time
		load.Go(func() {
			b := make([]byte, 4096)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a := steady.do(rw(Write, 0, 0, b)); a.err != 0 || a.n != 4096 {
					t.Errorf("%v", a)
					return
				}
			}
		})
	}
	for range rounds {
		ports := make([]*Port, others)
		calls := make([][]<-chan answer, others)
		for i := range ports {
			g := newGuest(t)
			for range 10 {
				calls[i] = append(calls[i], g.start(rw(Read, 0, 0, make([]byte, 512))))
			}
			var err error
			ports[i], err = e.Attach(PortConfig{Name: fmt.Sprint(i), FD: fd, Queues: []Queue{g}, Demand: demand})
			must(t, err)
		}
		if s := e.Stats(); s.Capacity != (others+1)*demand || s.Demand != s.Capacity {
			t.Errorf("with all disks: %+v", s)
		}
		for i, p := range ports {
			for _, call := range calls[i] {
				if a := await(t, deadline(t), call, "read"); a.err != 0 {
					t.Errorf("%v", a)
				}
			}
			detach(t, p)
		}
	}
	close(stop)
	load.Wait()
	must(t, p.Idle(deadline(t)))
	if s := e.Stats(); s.Capacity != before.Capacity || s.Demand != before.Demand || s.InFlight+s.Lent+s.WrittenOff != 0 {
		t.Errorf("afterwards %+v, before %+v", s, before)
	}
	sizes := make(chan [3]int, 1)
	e.mail.post(func() { sizes <- [3]int{len(e.slots.chunks) * slotChunk, e.slots.used, len(e.ports)} })
	if got := <-sizes; got != [3]int{demand, 0, 1} {
		t.Errorf("%d slots, %d of them used, %d ports; want %d, 0, 1", got[0], got[1], got[2], demand)
	}
}

// What was made for a disk, and isn't needed where the capacity is at its limit, isn't kept.
func TestNoSlotsAreLeftOver(t *testing.T) {
	e := newTestEngine(t, Config{MaxCapacity: 100})
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	for i := range 3 {
		port(t, e, PortConfig{Name: fmt.Sprint(i), FD: fd, Queues: []Queue{newGuest(t)}, Demand: 100})
		e.Expect(1000)
		left := make(chan int, 1)
		e.mail.post(func() { left <- len(e.slots.spare) })
		if n := await(t, deadline(t), left, "the engine"); n != 0 {
			t.Errorf("%d chunks are kept with %d disks", n, i+1)
		}
	}
}

// BenchmarkAttach compares the latencies of a disk, 16 requests deep, in three windows of a second: a control window, another in
// which a thread does what goes with 31 disks that come and go, but for attaching them, and one in which they do. It
// reports the 99.9th percentiles and their ratios to that of the control window, and that of the longest, as medians over
// all rounds, and how long an Attach takes.
func BenchmarkAttach(b *testing.B) {
	b.Setenv("EBB_CHECK", "")
	for kind := range openers {
		b.Run(engineNames[kind], func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), Processors+1)))
			const others, demand, window = 31, 256, time.Second
			fd := fullFile(b, "/dev/shm", 64<<20)
			attaches, spent := 0, time.Duration(0)
			comeAndGo := func(e *Engine, attach bool) {
				ports := make([]*Port, others)
				for i := range ports {
					kick, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
					must(b, err)
					defer unix.Close(kick)
					own, err := unix.Dup(fd)
					must(b, err)
					defer unix.Close(own)
					if attach {
						begin := time.Now()
						ports[i], err = e.Attach(PortConfig{Name: fmt.Sprint(i), FD: own, Queues: []Queue{&loopQueue{kick: kick}}, Demand: demand, MemoryAlign: 512})
						must(b, err)
						spent += time.Since(begin)
						attaches++
					}
					time.Sleep(window / (2 * others))
				}
				for _, p := range ports {
					if attach {
						detach(b, p)
					}
					time.Sleep(window / (2 * others))
				}
			}
			measure := func(meanwhile func(*Engine)) Latency {
				e, err := New(Config{Engine: EngineKind(kind)})
				must(b, err)
				q := newLoopQueue(b, 16, 64<<20/4096)
				p, err := e.Attach(PortConfig{Name: "steady", FD: fd, Queues: []Queue{q}, Demand: demand, MemoryAlign: 512})
				must(b, err)
				must(b, p.Idle(deadline(b)))
				q.run(1 << 40)
				meanwhile(e)
				l := p.Stats().Read.Latency
				detach(b, p)
				must(b, e.Close())
				return l
			}
			figures := map[string][]float64{}
			for range b.N {
				control := measure(func(*Engine) { time.Sleep(window) })
				without := measure(func(e *Engine) { comeAndGo(e, false) })
				attaching := measure(func(e *Engine) { comeAndGo(e, true) })
				for name, v := range map[string]float64{
					"p99.9-control-ms": ms(control.P999), "p99.9-attaching-ms": ms(attaching.P999), "p99.9-ratio": ms(attaching.P999) / ms(control.P999),
					"p99.9-ratio-without": ms(without.P999) / ms(control.P999), "max-ratio": ms(attaching.Max) / ms(control.Max),
				} {
					figures[name] = append(figures[name], v)
				}
			}
			for name, v := range figures {
				b.ReportMetric(stat.Of(v).Median, name)
			}
			b.ReportMetric(float64(spent.Microseconds())/float64(attaches), "us/attach")
		})
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Room for disks that are to come is made before they come, and given up when none are expected any more.
func TestExpect(t *testing.T) { eachEngine(t, testExpect) }

func testExpect(t *testing.T, cfg Config) {
	e := newTestEngine(t, cfg)
	fd := openFile(t, "/dev/shm", 0, 1<<20)
	for _, c := range []struct{ expected, capacity, demand int }{{1000, 1000, 100}, {150, 200, 200}, {0, 300, 300}, {1000, 1000, 400}, {0, 500, 500}} {
		e.Expect(c.expected)
		g := newGuest(t)
		port(t, e, PortConfig{Name: "disk", FD: fd, Queues: []Queue{g}, Demand: 100})
		if s := e.Stats(); s.Capacity != c.capacity || s.Demand != c.demand {
			t.Errorf("expecting %d: capacity %d for a demand of %d, want %d for %d", c.expected, s.Capacity, s.Demand, c.capacity, c.demand)
		}
		if a := g.do(rw(Read, 0, 0, make([]byte, 512))); a.err != 0 || a.n != 512 {
			t.Errorf("%v", a)
		}
	}
}
