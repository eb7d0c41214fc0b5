package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/report"
)

// load never ends. On every disk depth writers put 4 KiB at random places, one write at a time each; fill bytes of memory
// are filled at random, of which dirty bytes a second, page after page, then change. Every period it prints a
// report.DiskBenchSecond without the prefix of other workloads, as the disk benchmark without an operating system does: its rate counts writes and
// changed pages, its gap is what clocks.watch saw.
func load(a args) error {
	n, err := a.numbers("depth", "fill", "dirty")
	if err != nil {
		return err
	}
	depth, fill, dirty := n[0], n[1], n[2]
	period, err := a.duration("period")
	if err != nil || period <= 0 {
		return fmt.Errorf("period: not a duration above zero")
	}
	if fill%loadPage != 0 || fill == 0 && dirty > 0 {
		return fmt.Errorf("fill must be a multiple of %d, and above 0 if memory is to be dirtied", loadPage)
	}
	var disks []report.Disk
	if depth > 0 {
		if disks, err = a.disks(true); err != nil {
			return err
		}
	}
	// Neither Go's run queues nor its garbage collector are to be measured.
	runtime.GOMAXPROCS(len(disks)*int(depth) + 4)
	debug.SetGCPercent(-1)
	var l loaded
	errs := make(chan error)
	for _, rd := range disks {
		d, err := openDisk(rd.Name, unix.O_RDWR)
		if err != nil {
			return err
		}
		for i := range depth {
			go func() { errs <- l.write(d, uint64(i)) }()
		}
	}
	if fill > 0 {
		memory, err := alignedBuffer(int(fill))
		if err != nil {
			return err
		}
		random := xorshift(1)
		for p := memory; len(p) > 0; p = p[8:] {
			binary.LittleEndian.PutUint64(p, random.next())
		}
		if dirty > 0 {
			go l.dirty(memory, dirty, &random)
		}
	}
	begin := newClocks()
	go func() { errs <- l.watch(begin) }()
	return l.print(begin, period, errs)
}

// loadPage is a page, and what a writer writes, in bytes.
const loadPage = 4096

// loaded is what happened since the last line.
type loaded struct {
	done         atomic.Int64
	longest, gap atomic.Int64 // ns
}

// raise makes a at least v.
func raise(a *atomic.Int64, v int64) {
	for {
		old := a.Load()
		if v <= old || a.CompareAndSwap(old, v) {
			return
		}
	}
}

// write is one writer.
func (l *loaded) write(d *disk, seed uint64) error {
	buf, err := alignedBuffer(loadPage)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for {
		begin := time.Now()
		if err := d.write(buf, random.Int64N(d.size/loadPage)*loadPage); err != nil {
			return err
		}
		raise(&l.longest, int64(time.Since(begin)))
		l.done.Add(1)
	}
}

// dirty changes bytes of memory a second. What it could not in time it leaves.
func (l *loaded) dirty(memory []byte, bytes int64, random *xorshift) {
	const every = 10 * time.Millisecond
	at, pages := 0, max(1, bytes*int64(every)/int64(time.Second)/loadPage)
	for range time.Tick(every) {
		for range pages {
			binary.LittleEndian.PutUint64(memory[at:], random.next())
			at = (at + loadPage) % len(memory)
		}
		l.done.Add(pages)
	}
}

// watch looks at the clocks every millisecond, before any other thread, and notes the longest time between two looks.
func (l *loaded) watch(last clocks) error {
	runtime.LockOSThread()
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		return fmt.Errorf("SCHED_FIFO: %w", err)
	}
	for {
		wait := unix.NsecToTimespec(int64(time.Millisecond))
		_ = unix.Nanosleep(&wait, nil) // a signal ends it early, and does no harm
		now := last.again()
		raise(&l.gap, int64(now.since(last)))
		last = now
	}
}

// print prints the lines until something fails.
func (l *loaded) print(begin clocks, period time.Duration, errs <-chan error) error {
	tick := time.NewTicker(period)
	before := time.Duration(0)
	for t := 1; ; t++ {
		select {
		case err := <-errs:
			return err
		case <-tick.C:
		}
		at := time.Since(begin.monotonic)
		s := report.DiskBenchSecond{
			T: t, At: at, IOPS: float64(l.done.Swap(0)) / (at - before).Seconds(),
			Max: time.Duration(l.longest.Swap(0)), Gap: time.Duration(l.gap.Swap(0)),
		}
		before = at
		os.Stdout.WriteString(s.String() + "\n") // one write, so that no message of the kernel's falls into it
	}
}

// clocks are CLOCK_MONOTONIC and the processor's time-stamp counter at the same time.
type clocks struct {
	monotonic time.Time
	counter   uint64
	rate      float64 // of the counter, a nanosecond
}

// newClocks measures the counter's rate.
func newClocks() clocks {
	first := clocks{monotonic: time.Now(), counter: readTSC()}
	time.Sleep(100 * time.Millisecond)
	c := first.again()
	c.rate = float64(c.counter-first.counter) / float64(c.monotonic.Sub(first.monotonic))
	return c
}

func (c clocks) again() clocks { return clocks{time.Now(), readTSC(), c.rate} }

// since is how much time passed, by the clock that says more.
func (c clocks) since(d clocks) time.Duration {
	return max(c.monotonic.Sub(d.monotonic), time.Duration(float64(int64(c.counter-d.counter))/c.rate))
}

// readTSC is in tsc_amd64.s.
func readTSC() uint64

// xorshift makes numbers that no compression gets at, at little cost.
type xorshift uint64

func (x *xorshift) next() uint64 {
	*x ^= *x << 13
	*x ^= *x >> 7
	*x ^= *x << 17
	return uint64(*x)
}
