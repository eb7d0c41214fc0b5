package main

import (
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The watcher looks at the clocks every lookTime, before any other thread, and notes the longest time between two looks. It is
// a process of its own, of which all threads have a real-time policy: where one has it beside others of the same Go runtime,
// all stand still for a second or more when that one waits in a loop for what another does that it doesn't let run
// (runtime.casgstatus).

// lookTime is as short as an emulated processor can bear beside its other work.
const lookTime = 5 * time.Millisecond

// watcherName is the argument that makes this program the watcher. Its file descriptor 3 is the memory that the gap is in.
const watcherName = "watch-clocks"

// startWatcher starts the watcher, and returns the longest gap so far, in nanoseconds, which may be set back to 0. How the
// watcher ends, which it doesn't, goes to errs.
func startWatcher(errs chan<- error) (*atomic.Int64, error) {
	fd, err := unix.MemfdCreate(watcherName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	shared := os.NewFile(uintptr(fd), watcherName)
	defer shared.Close()
	if err := shared.Truncate(int64(os.Getpagesize())); err != nil {
		return nil, err
	}
	gap, err := mapInt64(fd)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", watcherName)
	cmd.ExtraFiles = []*os.File{shared}
	cmd.Stderr = os.Stderr
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends, and its policy is that of all of the watcher's threads
		err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
		if err != nil {
			started <- os.NewSyscallError("sched_setattr", err)
			return
		}
		started <- cmd.Start()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	go func() { errs <- cmd.Wait() }()
	return gap, nil
}

// watch is the watcher.
func watch() error {
	gap, err := mapInt64(3)
	if err != nil {
		return err
	}
	last := newClocks()
	for {
		sleep(lookTime)
		now := last.again()
		raise(gap, int64(now.since(last)))
		last = now
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
