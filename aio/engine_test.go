package aio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func lockThread(t testing.TB) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

// eachEngine runs a test over every engine there is.
func eachEngine(t *testing.T, test func(*testing.T, Config)) {
	for kind := range openers {
		t.Run(engineNames[kind], func(t *testing.T) { test(t, Config{Engine: EngineKind(kind)}) })
	}
}

// newTestEngine is an engine over a real backend: not a fallback's.
func newTestEngine(t testing.TB, cfg Config) *Engine {
	e, err := New(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, e.Close()) })
	if got := e.Stats().Engine; got != cfg.Engine {
		t.Fatalf("%v runs, not %v", got, cfg.Engine)
	}
	return e
}

// port attaches a disk that is detached at the end of the test.
func port(t testing.TB, e *Engine, cfg PortConfig) *Port {
	p, err := e.Attach(cfg)
	must(t, err)
	t.Cleanup(func() { detach(t, p) })
	return p
}

func detach(t testing.TB, p *Port) {
	t.Helper()
	gone := make(chan struct{})
	p.Detach(func() { close(gone) })
	await(t, deadline(t), gone, "detach")
}

// counts is what was counted, without how long it took.
func counts(s ClassStats) ClassStats {
	s.Latency = Latency{}
	return s
}

// files are the kinds of file disks are made of.
var files = []struct {
	name, dir string
	flags     int
	align     int
}{
	{"tmpfs", "/dev/shm", 0, 0},
	{"tmpfs direct", "/dev/shm", unix.O_DIRECT, 512},
	{"disk", "", 0, 0},
	{"disk direct", "", unix.O_DIRECT, 512},
}

func openFile(t testing.TB, dir string, flags int, size int64) int {
	if dir == "" {
		dir = t.TempDir()
	}
	f, err := os.CreateTemp(dir, "ebb-aio-")
	must(t, err)
	must(t, os.Remove(f.Name()))
	must(t, f.Truncate(size))
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	must(t, f.Close())
	if flags&unix.O_DIRECT != 0 && err == unix.EINVAL {
		t.Skip("no O_DIRECT on this file system") // tmpfs before Linux 6.6
	}
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// guest is the driver's side of a testQueue: it issues a request and waits for its answer.
type guest struct {
	*testQueue
	ctx   context.Context
	mu    sync.Mutex
	calls map[uint32]chan answer
	tag   uint32
}

func newGuest(t testing.TB) *guest {
	g := &guest{testQueue: newTestQueue(t), ctx: deadline(t), calls: map[uint32]chan answer{}}
	g.onAnswer = func(a answer) {
		g.mu.Lock()
		call := g.calls[a.tag]
		delete(g.calls, a.tag)
		g.mu.Unlock()
		if call == nil {
			t.Errorf("answered twice: %v", a)
			return
		}
		call <- a
	}
	return g
}

// start issues a request; its answer comes through the channel.
func (g *guest) start(r testRequest) <-chan answer {
	call := make(chan answer, 1)
	g.mu.Lock()
	g.tag++
	r.Tag = g.tag
	g.calls[r.Tag] = call
	g.mu.Unlock()
	g.add(r)
	return call
}

func (g *guest) do(r testRequest) answer {
	return await(g.t, g.ctx, g.start(r), fmt.Sprintf("%s at %d", r.Op, r.Offset))
}

// Random requests against a slice of bytes, on every kind of file.
func TestRequestsOnFiles(t *testing.T) { eachEngine(t, testRequestsOnFiles) }

func testRequestsOnFiles(t *testing.T, cfg Config) {
	const size, block = 4 << 20, 512
	for _, file := range files {
		t.Run(file.name, func(t *testing.T) {
			e := newTestEngine(t, cfg)
			g := newGuest(t)
			p := port(t, e, PortConfig{Name: "a", FD: openFile(t, file.dir, file.flags, size), Queues: []Queue{g},
				Demand: 16, MemoryAlign: file.align})
			model := make([]byte, size)
			r := rand.New(rand.NewPCG(1, 2))
			for i := range 600 {
				offset := r.IntN(size/block) * block
				length := min(1+r.IntN(400), (size-offset)/block) * block
				if r.IntN(2) == 0 {
					length = min(length, 8*block)
				}
				// Buffers split anyhow, aligned or not.
				whole := alignedBytes(length+block, block)[r.IntN(2)*r.IntN(block):][:length]
				cuts := [2]int{r.IntN(length), r.IntN(length)}
				if r.IntN(2) == 0 {
					cuts = [2]int{cuts[0] / block * block, cuts[1] / block * block}
				}
				low, high := min(cuts[0], cuts[1]), max(cuts[0], cuts[1])
				parts := [][]byte{whole[:low], whole[low:high], whole[high:]}
				var req testRequest
				switch what := r.IntN(10); {
				case what < 4:
					req = rw(Read, 0, int64(offset), parts...)
				case what < 8:
					req = rw(Write, 0, int64(offset), parts...)
					copy(whole, pattern(length, uint64(i)))
				case what == 8:
					req = ranged(WriteZeroes, 0, int64(offset), int64(length))
					req.Unmap = r.IntN(2) == 0
				default:
					req = ranged(Flush, 0, 0, 0)
				}
				req.Durable = r.IntN(4) == 0
				a := g.do(req)
				if a.err != 0 || req.Op <= Write && a.n != int64(length) {
					t.Fatalf("%s of %d at %d: %v", req.Op, length, offset, a)
				}
				switch in := model[offset : offset+length]; req.Op {
				case Read:
					if !bytes.Equal(whole, in) {
						t.Fatalf("request %d: read at %d of %d bytes: wrong data", i, offset, length)
					}
				case Write:
					copy(in, whole)
				case WriteZeroes:
					clear(in)
				}
			}
			for _, op := range []Op{Discard, WriteZeroes} {
				req := ranged(op, 0, 0, size)
				req.Durable = true
				if a := g.do(req); a.err != 0 {
					t.Errorf("%s: %v", op, a)
				}
			}
			whole := alignedBytes(size, block)
			if a := g.do(rw(Read, 0, 0, whole)); a.err != 0 || bytes.ContainsFunc(whole, func(r rune) bool { return r != 0 }) {
				t.Errorf("after zeroes: %v", a)
			}
			must(t, p.Idle(deadline(t))) // the last answer came before it was counted
			if s := p.Stats(); s.Read.Errors+s.Write.Errors+s.Long.Errors != 0 || s.InFlight != 0 || s.Write.Bytes == 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The ring works with what older kernels know of its flags.
func TestOlderRings(t *testing.T) {
	all := ringSetups
	defer func() { ringSetups = all }()
	for i := range all {
		ringSetups = append([]uint32{1 << 31}, all[i:]...) // no kernel knows that flag
		e := newTestEngine(t, Config{})
		g := newGuest(t)
		p := port(t, e, PortConfig{Name: "a", FD: openFile(t, "/dev/shm", 0, 1<<20), Queues: []Queue{g}, Demand: 16})
		for range 100 {
			if a := g.do(rw(Write, 0, 0, pattern(4096, 1))); a.err != 0 {
				t.Fatal(a)
			}
		}
		detach(t, p)
		must(t, e.Close())
	}
}

// A file cut short under its disk, and a device without space, fail their own requests only.
func TestBadDisks(t *testing.T) { eachEngine(t, testBadDisks) }

func testBadDisks(t *testing.T, cfg Config) {
	e := newTestEngine(t, cfg)
	short, full, good := newGuest(t), newGuest(t), newGuest(t)
	fd := openFile(t, "", 0, 1<<20)
	devFull, err := unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(devFull)
	port(t, e, PortConfig{Name: "short", FD: fd, Queues: []Queue{short}, Demand: 16})
	p := port(t, e, PortConfig{Name: "full", FD: devFull, Queues: []Queue{full}, Demand: 16})
	port(t, e, PortConfig{Name: "good", FD: openFile(t, "", 0, 1<<20), Queues: []Queue{good}, Demand: 16})
	must(t, unix.Ftruncate(fd, 512<<10))
	for range 20 {
		if a := short.do(rw(Read, 0, 800<<10, make([]byte, 4096))); a.err != unix.EIO || a.n != 0 {
			t.Fatalf("beyond the end: %v", a)
		}
		if a := short.do(rw(Read, 0, 510<<10, make([]byte, 4096))); a.err != unix.EIO || a.n != 2048 {
			t.Fatalf("across the end: %v", a)
		}
		if a := full.do(rw(Write, 0, 0, make([]byte, 4096))); a.err != unix.ENOSPC {
			t.Fatalf("/dev/full: %v", a)
		}
		if a := good.do(rw(Write, 0, 0, make([]byte, 4096))); a.err != 0 {
			t.Fatalf("good disk: %v", a)
		}
	}
	must(t, p.Idle(deadline(t)))
	if s := counts(p.Stats().Write); s != (ClassStats{Requests: 20, Errors: 20}) {
		t.Errorf("%+v", s)
	}
}

// A disk that doesn't answer keeps its requests, its port and the engine, until it does;
// others go on.
func TestHungDisk(t *testing.T) { eachEngine(t, testHungDisk) }

func testHungDisk(t *testing.T, cfg Config) {
	e := newTestEngine(t, cfg)
	var pipe [2]int
	must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	hung, good := newGuest(t), newGuest(t)
	p, err := e.Attach(PortConfig{Name: "hung", FD: pipe[0], Queues: []Queue{hung}, Demand: 16})
	must(t, err)
	port(t, e, PortConfig{Name: "good", FD: openFile(t, "", 0, 1<<20), Queues: []Queue{good}, Demand: 16})
	b := make([]byte, 512)
	call := hung.start(rw(Read, 0, 0, b))
	for p.Stats().InFlight == 0 {
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Idle(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "disk hung: 1 requests") {
		t.Errorf("%v", err)
	}
	if err := e.Close(); err == nil || !strings.Contains(err.Error(), "attached") {
		t.Errorf("Close: %v", err)
	}
	gone := make(chan struct{})
	p.Detach(func() { close(gone) })
	for range 100 {
		if a := good.do(rw(Write, 0, 0, make([]byte, 4096))); a.err != 0 {
			t.Fatal(a)
		}
		if a := good.do(ranged(Flush, 0, 0, 0)); a.err != 0 {
			t.Fatal(a)
		}
	}
	select {
	case <-gone:
		t.Fatal("the port is gone, and its request in the kernel")
	case a := <-call:
		t.Fatalf("the disk answered: %v", a)
	default:
	}
	// Half of the data, then the other.
	for range 2 {
		_, err = unix.Write(pipe[1], bytes.Repeat([]byte{7}, 256))
		must(t, err)
	}
	if a := await(t, deadline(t), call, "the read"); a.n != 512 || a.err != 0 || b[511] != 7 {
		t.Errorf("%v", a)
	}
	await(t, deadline(t), gone, "detach")
}

func TestClosedEngine(t *testing.T) { eachEngine(t, testClosedEngine) }

func testClosedEngine(t *testing.T, cfg Config) {
	e, err := New(cfg)
	must(t, err)
	p, err := e.Attach(PortConfig{Name: "a", FD: 0, Queues: []Queue{newTestQueue(t)}, Demand: 16})
	must(t, err)
	detach(t, p)
	must(t, p.Idle(deadline(t)))
	p.SetWindow(CausePause, 0)
	detach(t, p)
	must(t, e.Close())
	must(t, e.Close())
	if _, err := e.Attach(PortConfig{Name: "a", MemoryAlign: 512}); !errors.Is(err, errClosed) {
		t.Errorf("%v", err)
	}
	must(t, p.Idle(deadline(t)))
	p.SetWindow(CausePause, 0)
	detach(t, p)
}

func TestBadConfigurations(t *testing.T) { eachEngine(t, testBadConfigurations) }

func testBadConfigurations(t *testing.T, cfg Config) {
	if _, err := New(Config{MaxCapacity: -1, Engine: cfg.Engine}); err == nil {
		t.Error("negative capacity")
	}
	e := newTestEngine(t, cfg)
	noKick := newTestQueue(t)
	noKick.kick = -1
	for _, port := range []PortConfig{
		{FD: -1}, {Demand: -1}, {MemoryAlign: 3}, {MemoryAlign: -1}, {MemoryAlign: 8192}, {Queues: []Queue{noKick}},
	} {
		port.Name = "vda"
		if _, err := e.Attach(port); err == nil || !strings.Contains(err.Error(), "disk vda") {
			t.Errorf("%+v: %v", port, err)
		}
	}
}
