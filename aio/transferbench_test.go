package aio

import (
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// transferQueue is a loopQueue of another kind of requests, every so many of them a flush.
type transferQueue struct {
	*loopQueue
	op    Op
	flush int // 0: none
	n     int
}

func (q *transferQueue) Pop(r *Request, more bool) Popped {
	got := q.loopQueue.Pop(r, more)
	if got != Issue {
		return got
	}
	q.n++
	r.Op = q.op
	if q.flush > 0 && q.n%q.flush == 0 {
		r.Op, r.Offset, r.Length, r.Segments = Flush, 0, 0, r.Segments[:0]
	}
	return got
}

func (q *transferQueue) Complete(r *Request, n int64, err unix.Errno) {
	if r.Op == Flush {
		n = 4096 // as the others
	}
	q.loopQueue.Complete(r, n, err)
}

// BenchmarkTransfers is what BenchmarkReads leaves out: the page cache, writes, and flushes among them.
func BenchmarkTransfers(b *testing.B) {
	const size = 64 << 20
	b.Setenv("EBB_CHECK", "")
	for kind := range openers {
		for _, c := range []struct {
			name, dir string
			flags     int
			op        Op
			flush     int
		}{
			{"disk/direct/writes", "", unix.O_DIRECT, Write, 0},
			{"disk/direct/flush=64", "", unix.O_DIRECT, Write, 64},
			{"disk/cached/writes", "", 0, Write, 0},
			{"disk/cached/reads", "", 0, Read, 0},
			{"tmpfs/cached/writes", "/dev/shm", 0, Write, 0},
			{"tmpfs/cached/reads", "/dev/shm", 0, Read, 0},
		} {
			for _, depth := range []int{1, 64} {
				b.Run(fmt.Sprintf("%s/%s/depth=%d", engineNames[kind], c.name, depth), func(b *testing.B) {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), Processors+1)))
					e, err := New(Config{Engine: EngineKind(kind)})
					must(b, err)
					fd := fullFile(b, c.dir, size)
					flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
					must(b, err)
					_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_DIRECT|c.flags)
					must(b, err)
					q := &transferQueue{loopQueue: newLoopQueue(b, depth, size/4096), op: c.op, flush: c.flush}
					p, err := e.Attach(PortConfig{Name: "disk", FD: fd, Queues: []Queue{q}, Demand: depth, MemoryAlign: 512})
					must(b, err)
					must(b, p.Idle(deadline(b)))
					cpu := cpuTime(b)
					b.ResetTimer()
					q.run(b.N)
					<-q.done
					b.StopTimer()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "IOPS")
					b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/op")
					detach(b, p)
					if q.errors > 0 {
						b.Errorf("%d errors", q.errors)
					}
					must(b, e.Close())
				})
			}
		}
	}
}
