package main

import (
	"encoding/binary"
	"fmt"
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
// changed pages, its gap is the watcher's.
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
	runtime.GOMAXPROCS(4)
	debug.SetGCPercent(-1)
	errs := make(chan error)
	gap, err := startWatcher(errs)
	if err != nil {
		return fmt.Errorf("the watcher of the clocks: %w", err)
	}
	l := loaded{gap: gap}
	var open []*disk
	for _, rd := range disks {
		d, err := openDisk(rd.Name, unix.O_RDWR)
		if err != nil {
			return err
		}
		open = append(open, d)
	}
	if len(open) > 0 {
		go func() { errs <- l.write(open, int(depth)) }()
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
	return l.print(period, errs)
}

// loadPage is a page, and what a writer writes, in bytes.
const loadPage = 4096

// loaded is what happened since the last line.
type loaded struct {
	done    atomic.Int64
	longest atomic.Int64  // ns
	gap     *atomic.Int64 // ns
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

// print prints the lines until something fails.
func (l *loaded) print(period time.Duration, errs <-chan error) error {
	begin := time.Now()
	tick := time.NewTicker(period)
	before := time.Duration(0)
	for t := 1; ; t++ {
		select {
		case err := <-errs:
			return err
		case <-tick.C:
		}
		at := time.Since(begin)
		s := report.DiskBenchSecond{
			T: t, At: at, IOPS: float64(l.done.Swap(0)) / (at - before).Seconds(),
			Max: time.Duration(l.longest.Swap(0)), Gap: time.Duration(l.gap.Swap(0)),
		}
		before = at
		os.Stdout.WriteString(s.String() + "\n") // one write, so that no message of the kernel's falls into it
	}
}

// xorshift makes numbers that no compression gets at, at little cost.
type xorshift uint64

func (x *xorshift) next() uint64 {
	*x ^= *x << 13
	*x ^= *x >> 7
	*x ^= *x << 17
	return uint64(*x)
}
