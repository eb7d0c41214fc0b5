package aio

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHandOverOf(t *testing.T) {
	inMemory := handLarge
	var host unix.Sysinfo_t
	must(t, unix.Sysinfo(&host))
	if host.Totalswap > 0 {
		inMemory = handAll
	}
	ext4 := openFile(t, "", unix.O_DIRECT, 1<<20)
	for _, c := range []struct {
		name  string
		fd    int
		magic int64 // of a file system that is known to do so
		want  handOver
	}{
		{"tmpfs", openFile(t, "/dev/shm", unix.O_DIRECT, 1<<20), unix.TMPFS_MAGIC, inMemory},
		{"tmpfs, buffered", openFile(t, "/dev/shm", 0, 1<<20), unix.TMPFS_MAGIC, handAll},
		{"ext4", ext4, unix.EXT4_SUPER_MAGIC, handBlocking},
	} {
		var st unix.Statfs_t
		must(t, unix.Fstatfs(c.fd, &st))
		if st.Type != c.magic {
			t.Logf("no %s here", c.name)
			continue
		}
		if got := handOverOf(c.fd); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Where a transfer takes place, on files that can't be asked not to block.
func TestHandOver(t *testing.T) {
	small, large := make([]byte, maxInline), make([]byte, maxInline+1)
	type where struct {
		file  handOver
		async bool
	}
	for _, c := range []struct {
		name     string
		handOver handOver
		requests []testRequest
		want     []where
	}{
		{"what would block", handBlocking,
			[]testRequest{rw(Read, 0, 0, large), rw(Write, 1, 0, large), {Request: Request{Op: Flush}}},
			[]where{{}, {}, {}}},
		{"all", handAll,
			[]testRequest{rw(Read, 0, 0, small), rw(Write, 1, 0, small), {Request: Request{Op: Flush}}},
			[]where{{file: handAll}, {file: handAll}, {}}},
		{"large", handLarge,
			[]testRequest{rw(Read, 0, 0, small), rw(Read, 1, 0, large), rw(Write, 2, 0, small)},
			[]where{{file: handLarge}, {handLarge, true}, {file: handLarge}}},
		{"writes beside a large write", handLarge,
			[]testRequest{rw(Write, 0, 0, large), rw(Write, 1, 0, small), rw(Read, 2, 0, small)},
			[]where{{handLarge, true}, {handLarge, true}, {file: handLarge}}},
		{"writes beside a discard", handLarge,
			[]testRequest{ranged(Discard, 0, 0, 4096), rw(Write, 1, 0, small), rw(Read, 2, 0, small)},
			[]where{{}, {handLarge, true}, {file: handLarge}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, 1<<20)
			e := f.engine(0)
			q := newTestQueue(t)
			p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 8})
			p.handOver = c.handOver
			q.add(c.requests...)
			f.signal(p.queues[0])
			f.rest(e)
			for i, op := range f.log {
				if got := (where{op.file, op.async}); got != c.want[i] {
					t.Errorf("request %d: %+v, not %+v", i, got, c.want[i])
				}
			}
			if len(f.log) != len(c.want) || p.elsewhere != 0 {
				t.Errorf("%d operations, %d still elsewhere", len(f.log), p.elsewhere)
			}
			// All is back: the next write is tried again.
			f.log = nil
			q.add(rw(Write, 9, 0, small))
			f.signal(p.queues[0])
			f.rest(e)
			if len(f.log) != 1 || f.log[0].async {
				t.Errorf("afterwards: %+v", f.log)
			}
		})
	}
}

// With io_uring, what has to goes to other threads at once.
func TestWhatTheRingGets(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	r.workers.execute = func(*operation) int32 { return 0 }
	buffer := []unix.Iovec{iovec(make([]byte, 1))}
	const worker, kernel = -1, -2
	for _, c := range []struct {
		op   operation
		want int // RWF_*; or whose thread it is handed over to
	}{
		{operation{code: opRead, file: handBlocking}, 0},
		{operation{code: opRead, file: handBlocking, nowait: true}, unix.RWF_NOWAIT},
		{operation{code: opWrite, file: handBlocking, nowait: true, dsync: true}, unix.RWF_NOWAIT | unix.RWF_DSYNC},
		{operation{code: opRead, file: handBlocking, async: true}, worker},
		{operation{code: opRead, file: handBuffered}, 0},
		{operation{code: opWrite, file: handBuffered}, 0},
		{operation{code: opRead, file: handBuffered, async: true}, kernel},
		{operation{code: opWrite, file: handLarge}, 0},
		{operation{code: opRead, file: handLarge, async: true}, kernel},
		{operation{code: opRead, file: handRemote}, kernel},
		{operation{code: opRead, file: handAll}, kernel},
		{operation{code: opSync}, worker},
		{operation{code: opAllocate}, worker},
	} {
		c.op.iov = buffer
		tail := r.tail
		r.submit(&c.op)
		got := worker
		if r.tail != tail {
			sqe := &r.sqes[tail&uint32(len(r.sqes)-1)]
			if got = int(sqe.opFlags); sqe.flags&sqeAsync != 0 {
				got = kernel
			}
		}
		if got != c.want || (got == worker) != (len(r.workers.batch) == 1) || (got == kernel) != (r.handed == 1) {
			t.Errorf("%+v: %#x, %d to workers, %d to the kernel's threads; want %#x", c.op, got, len(r.workers.batch), r.handed, c.want)
		}
		r.tail, r.handed = tail, 0
		r.workers.inFlight, r.workers.batch = 0, r.workers.batch[:0]
	}
}

// Disks whose transfers all need one of the kernel's threads get a part of them each, so that one that hangs leaves the others some.
func TestWorkersAreShared(t *testing.T) {
	e := newFake(t, 1<<20).engine(0)
	e.workers = maxWorkers
	var ports []*Port
	for i, demand := range []int{1000, 1000, 350} {
		ports = append(ports, attach(t, e, PortConfig{Name: fmt.Sprint(i), Queues: []Queue{newTestQueue(t)}, Demand: demand}))
	}
	for _, c := range []struct {
		kind     EngineKind
		handOver [3]handOver
		want     [3]int
		mayBlock int // handBlocking
	}{
		{EngineUring, [3]handOver{handAll, handBlocking, handLarge}, [3]int{512, Unlimited, Unlimited}, 1024},
		{EngineUring, [3]handOver{handAll, handBlocking, handRemote}, [3]int{341, Unlimited, 341}, 1024},
		{EngineUring, [3]handOver{handAll, handAll, handAll}, [3]int{256, 256, 256}, 0},
		{EngineUring, [3]handOver{handBlocking, handBlocking, handAll}, [3]int{Unlimited, Unlimited, Unlimited}, 512}, // there are enough
	} {
		e.kind = c.kind
		for i, p := range ports {
			p.handOver = c.handOver[i]
			p.setBound(CauseWorkers, Unlimited) // files don't change in earnest
		}
		e.resize()
		for i, p := range ports {
			if s := p.Stats(); s.Windows[CauseWorkers] != c.want[i] || p.window != c.want[i] {
				t.Errorf("%v, files %v: disk %d may have %d in flight, want %d", c.kind, c.handOver, i, s.Windows[CauseWorkers], c.want[i])
			}
			for _, beyond := range []int{0, 1} {
				op := operation{code: opRead}
				p.inFlight = c.mayBlock + beyond
				p.hand(&slot{}, &op)
				if want := p.handOver == handBlocking && beyond == 1; op.nowait != want {
					t.Errorf("files %v: with %d in flight disk %d is asked not to block: %v", c.handOver, p.inFlight, i, op.nowait)
				}
			}
			p.inFlight = 0
		}
	}
	f := newFake(t, 1<<20)
	e = f.engine(0)
	e.kind, e.workers = EngineNative, maxWorkers // whose workers are shared out among files
	p := attach(t, e, PortConfig{Name: "a", Queues: []Queue{newTestQueue(t)}, Demand: 5000})
	p.handOver = handAll
	if e.resize(); p.window != Unlimited {
		t.Errorf("native: %d", p.window)
	}
}
