package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bareName    = "bare"
	requestSize = 4096 // bytes
)

// bare does the same reads without a VM, on one ring and one thread, beside a core
// that is as busy as a polling vCPU makes it.
func bare(s setup, images []string, d time.Duration) (result, error) {
	var over atomic.Bool
	spinning := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(spinning)
		for !over.Load() {
		}
	}()
	defer over.Store(true)
	<-spinning
	// The ring belongs to the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	n := s.Disks * s.Depth
	memory, err := unix.Mmap(-1, 0, n*requestSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return result{}, err
	}
	defer unix.Munmap(memory)
	l := bareLoop{depth: s.Depth, blocks: uint64(imageSize(s.Disks) / requestSize), memory: memory, perDisk: make([]int64, s.Disks), submitted: make([]time.Time, n)}
	for _, path := range images {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			return result{}, err
		}
		defer f.Close()
		// On tmpfs the kernel then copies within the system call, as it does for ebb. Elsewhere it means nothing.
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, unix.O_DIRECT|unix.O_NONBLOCK); err != nil {
			return result{}, err
		}
		l.fds = append(l.fds, int32(f.Fd()))
	}
	if l.ring, err = newRing(n); err != nil {
		return result{}, fmt.Errorf("io_uring: %w", err)
	}
	defer l.ring.close()
	got, err := l.run(d)
	if err == nil && l.errors != 0 {
		err = fmt.Errorf("%d reads failed", l.errors)
	}
	return got, err
}

type bareLoop struct {
	ring      *ring
	fds       []int32
	depth     int
	blocks    uint64 // of each disk
	memory    []byte
	random    uint64
	inFlight  int
	perDisk   []int64     // completions
	submitted []time.Time // by slot
	latencies []float64   // microseconds, every 64th
	errors    int64
}

const warmUp = 250 * time.Millisecond // as the guest's

func (l *bareLoop) run(d time.Duration) (result, error) {
	l.random = 88172645463325252
	begin := time.Now()
	for slot := range l.submitted {
		l.submit(slot, begin)
	}
	counting := false
	now := begin
	for ; !counting || now.Sub(begin) < d; now = time.Now() {
		if !counting && now.Sub(begin) >= warmUp {
			counting, begin = true, now
			clear(l.perDisk)
			l.latencies = l.latencies[:0]
		}
		if err := l.turn(now, true); err != nil {
			return result{}, err
		}
	}
	took := now.Sub(begin).Seconds()
	got := l.result(took)
	for l.inFlight > 0 { // the kernel writes to memory until then
		if err := l.turn(now, false); err != nil {
			return result{}, err
		}
	}
	return got, nil
}

func (l *bareLoop) submit(slot int, now time.Time) {
	l.random ^= l.random << 13
	l.random ^= l.random >> 7
	l.random ^= l.random << 17
	l.submitted[slot] = now
	l.ring.read(l.fds[slot/l.depth], l.memory[slot*requestSize:(slot+1)*requestSize], l.random%l.blocks*requestSize, uint64(slot))
	l.inFlight++
}

// turn submits, waits for a completion, and takes all there are.
func (l *bareLoop) turn(now time.Time, again bool) error {
	if err := l.ring.enter(); err != nil {
		return fmt.Errorf("io_uring_enter: %w", err)
	}
	for {
		slot, res, ok := l.ring.next()
		if !ok {
			return nil
		}
		l.inFlight--
		if res != requestSize {
			l.errors++
		}
		disk := int(slot) / l.depth
		if l.perDisk[disk]++; l.perDisk[disk]%64 == 0 {
			l.latencies = append(l.latencies, float64(time.Since(l.submitted[slot]))/1e3)
		}
		if again {
			l.submit(int(slot), now)
		}
	}
}

func (l *bareLoop) result(seconds float64) result {
	var r result
	for _, n := range l.perDisk {
		r.IOPS += float64(n) / seconds
	}
	r.Fairness = float64(slices.Min(l.perDisk)) / float64(slices.Max(l.perDisk))
	if len(l.latencies) > 0 {
		slices.Sort(l.latencies)
		at := func(q float64) float64 { return l.latencies[int(q*float64(len(l.latencies)-1))] }
		r.P50, r.P99, r.P999 = at(.5), at(.99), at(.999)
	}
	return r
}
