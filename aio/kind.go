package aio

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// EngineKind is a way to have the kernel carry out disk requests.
type EngineKind uint8

const (
	// EngineUring is io_uring: one system call a turn, and the kernel's threads or workers for what blocks.
	// Where io_uring is refused or too old New takes the next one instead.
	EngineUring EngineKind = iota

	// EngineNative is Linux AIO, for what it can do without blocking, and workers for the
	// rest: buffered I/O, flushes, discards, zeroes.
	EngineNative

	// EngineThreads is workers only, making ordinary system calls.
	EngineThreads
)

var engineNames = []string{EngineUring: "uring", EngineNative: "native", EngineThreads: "threads"}

// String returns the engine's name as options spell it.
func (k EngineKind) String() string {
	if int(k) < len(engineNames) {
		return engineNames[k]
	}
	return fmt.Sprintf("engine %d", uint8(k))
}

// ParseEngine is the reverse of String. The error doesn't repeat the name.
func ParseEngine(name string) (EngineKind, error) {
	for k, n := range engineNames {
		if n == name {
			return EngineKind(k), nil
		}
	}
	return 0, fmt.Errorf("there is no such engine; write uring, native or threads")
}

// Processors is how many of Go's processors (runtime.GOMAXPROCS) an engine makes good use of, beside those of the rest of the
// program: one for its thread, and for workers enough that one that blocks may keep its own. Where they are scarce Go's monitor
// takes it away and the worker has to queue for another when it comes back: with 2, reads of
// a real disk by workers at a depth of 64 took twice the CPU time and came at less than half the rate
// of those with 16.
const Processors = 16

// opener makes a backend for at most limit operations in flight, on the thread that will
// use it, and returns the limit it can really back.
type opener func(limit int) (backend, int, error)

var openers = []opener{
	EngineUring:   func(limit int) (backend, int, error) { return opened(newRing(limit)) },
	EngineNative:  func(limit int) (backend, int, error) { return opened(newNative(limit)) },
	EngineThreads: func(limit int) (backend, int, error) { return opened(newThreads(limit)) },
}

// choose opens the engine's backend, and sets kind to what it really is: where the host has
// no io_uring for us it is the next that works, said in one line of the log.
func (e *Engine) choose(limit int) (backend, int, error) {
	b, most, err := openers[e.kind](limit)
	lacking := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) || errors.Is(err, errTooOld)
	if e.kind != EngineUring || !lacking {
		return b, most, err
	}
	for _, kind := range []EngineKind{EngineNative, EngineThreads} {
		var other error
		if b, most, other = openers[kind](limit); other == nil {
			e.kind = kind
			e.log.Warn("another engine does the disks' I/O, more slowly", "engine", kind, "because", err)
			return b, most, nil
		}
	}
	return nil, 0, err
}

// Probe reports why this host has no engine of a kind, or nil. It looks for no other instead.
func Probe(kind EngineKind) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		b, _, err := openers[kind](minCapacity)
		if err == nil {
			err = b.close()
		}
		failed <- err
	}()
	return <-failed
}

// opened keeps a nil pointer from becoming a backend that isn't nil.
func opened[B backend](b B, limit int, err error) (backend, int, error) {
	if err != nil {
		return nil, 0, err
	}
	return b, limit, nil
}
