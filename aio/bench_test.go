package aio

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// loopQueue has 4 KiB reads, as many in flight as it has buffers, until a count is reached:
// a guest that asks for the next request, and kicks, as soon as answers are published.
type loopQueue struct {
	kick    int
	buffers []unix.Iovec // one for each tag
	free    []uint32
	left    int64 // to be popped
	open    int64 // to be completed
	blocks  int64
	seed    uint64
	errors  int
	armed   bool // a kick is wanted
	done    chan struct{}
	started atomic.Bool
}

func newLoopQueue(t testing.TB, depth int, blocks int64) *loopQueue {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(t, err)
	memory, err := unix.Mmap(-1, 0, depth*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd); unix.Munmap(memory) })
	q := &loopQueue{kick: fd, blocks: blocks, seed: 88172645463325252, done: make(chan struct{}, 1)}
	for i := range depth {
		q.buffers = append(q.buffers, iovec(memory[i*4096:(i+1)*4096]))
		q.free = append(q.free, uint32(i))
	}
	return q
}

// run has the engine do n requests; it comes before the kick that starts them.
func (q *loopQueue) run(n int) {
	q.left, q.open = int64(n), int64(n)
	q.started.Store(true)
	_, _ = unix.Write(q.kick, one)
}

func (q *loopQueue) KickFD() int { return q.kick }

func (q *loopQueue) Pop(r *Request, _ bool) Popped {
	if !q.started.Load() || q.left == 0 || len(q.free) == 0 {
		return Empty
	}
	q.left--
	tag := q.free[len(q.free)-1]
	q.free = q.free[:len(q.free)-1]
	q.seed ^= q.seed << 13
	q.seed ^= q.seed >> 7
	q.seed ^= q.seed << 17
	r.Op, r.Tag, r.Length = Read, tag, 4096
	r.Offset = int64(q.seed%uint64(q.blocks)) * 4096
	r.Segments = append(r.Segments[:0], q.buffers[tag])
	return Issue
}

func (q *loopQueue) Complete(r *Request, n int64, err unix.Errno) {
	if err != 0 || n != 4096 {
		q.errors++
	}
	q.free = append(q.free, r.Tag)
	q.open--
}

func (q *loopQueue) Publish() {
	switch {
	case q.open == 0:
		q.started.Store(false)
		q.done <- struct{}{}
	case q.left > 0 && q.armed:
		_, _ = unix.Write(q.kick, one) // the guest's next requests
	}
}

func (q *loopQueue) Pending() bool { return q.started.Load() && q.left > 0 && len(q.free) > 0 }

func (q *loopQueue) EnableKicks() bool {
	q.armed = true
	return len(q.free) > 0 && q.left > 0
}
func (q *loopQueue) DisableKicks() { q.armed = false }

// fullFile makes a file of n bytes, none of them a hole, opened with O_DIRECT. dir is as openFile's.
func fullFile(t testing.TB, dir string, n int64) int {
	fd := openFile(t, dir, unix.O_DIRECT, n)
	chunk, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(t, err)
	defer unix.Munmap(chunk)
	for i := range chunk {
		chunk[i] = byte(i * 7)
	}
	for off := int64(0); off < n; off += int64(len(chunk)) {
		_, err := unix.Pwrite(fd, chunk, off)
		must(t, err)
	}
	return fd
}

// BenchmarkReads is the bare path: queue → engine → kernel → file and back, 4 KiB random
// reads with O_DIRECT, some in flight on each disk. With "kicks" every batch of answers
// brings a kick, as from a guest that waits for interrupts; with "full" there are fewer
// credits than requests, and the queue is never empty.
func BenchmarkReads(b *testing.B) {
	b.Setenv("EBB_CHECK", "")
	for kind := range openers {
		b.Run(engineNames[kind], func(b *testing.B) { benchmarkEngine(b, EngineKind(kind)) })
	}
}

func benchmarkEngine(b *testing.B, kind EngineKind) {
	for _, where := range []struct{ name, dir string }{{"tmpfs", "/dev/shm"}, {"disk", ""}} {
		for _, disks := range []int{1, 4, 16} {
			for _, depth := range []int{1, 64} {
				for _, full := range []bool{false, true} {
					mode := map[bool]string{false: "kicks", true: "full"}[full]
					b.Run(fmt.Sprintf("%s/disks=%d/depth=%d/%s", where.name, disks, depth, mode), func(b *testing.B) {
						benchmarkReads(b, kind, where.dir, disks, depth, full)
					})
				}
			}
		}
	}
}

func benchmarkReads(b *testing.B, kind EngineKind, dir string, disks, depth int, full bool) {
	const size = 64 << 20
	cfg, buffers := Config{Engine: kind}, depth
	if full {
		cfg.MaxCapacity, buffers = disks*depth, 2*disks*depth
	}
	// As a machine does it.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), Processors+1)))
	e, err := New(cfg)
	must(b, err)
	fd := fullFile(b, dir, size)
	var queues []*loopQueue
	var ports []*Port
	for i := range disks {
		q := newLoopQueue(b, buffers, size/4096)
		p, err := e.Attach(PortConfig{Name: fmt.Sprint(i), FD: fd, Queues: []Queue{q}, Demand: depth, MemoryAlign: 512})
		must(b, err)
		must(b, p.Idle(deadline(b)))
		queues, ports = append(queues, q), append(ports, p)
	}
	before, cpu := e.Stats().Enters, cpuTime(b)
	b.ReportAllocs()
	b.ResetTimer()
	for _, q := range queues {
		q.run(max(b.N/disks, 1))
	}
	for _, q := range queues {
		<-q.done
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "IOPS")
	b.ReportMetric(float64(b.N)/float64(e.Stats().Enters-before), "req/enter")
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/op")
	for i, p := range ports {
		detach(b, p)
		if queues[i].errors > 0 {
			b.Errorf("%d errors", queues[i].errors)
		}
	}
	must(b, e.Close())
}

// cpuTime is what the process has used in nanoseconds, the kernel's threads for it included.
func cpuTime(t testing.TB) int64 {
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}
