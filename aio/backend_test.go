package aio

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// eachBackend runs a test over every backend there is.
func eachBackend(t *testing.T, test func(*testing.T, backend)) {
	for kind, open := range openers {
		t.Run(engineNames[kind], func(t *testing.T) {
			lockThread(t)
			b, _, err := open(64)
			must(t, err)
			defer func() { must(t, b.close()) }()
			test(t, b)
		})
	}
}

// nextEvent waits for one event. Backend tests run on one goroutine, which LockOSThread keeps on
// the backend's thread.
func nextEvent(t testing.TB, b backend) event {
	t.Helper()
	var ev [1]event
	for range 1000 {
		if b.reap(ev[:]) == 1 {
			return ev[0]
		}
		must(t, b.wait(true))
	}
	t.Fatal("no event")
	panic("unreachable")
}

// quiet fails if there is an event.
func quiet(t testing.TB, b backend) {
	t.Helper()
	must(t, b.wait(false))
	var ev [1]event
	if b.reap(ev[:]) != 0 {
		t.Fatalf("unexpected event %+v", ev[0])
	}
}

func eventfd(t testing.TB) int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func signal(t testing.TB, fd int) {
	_, err := unix.Write(fd, one)
	must(t, err)
}

func TestWatch(t *testing.T) { eachBackend(t, testWatch) }

func testWatch(t *testing.T, b backend) {
	one, other := eventfd(t), eventfd(t)
	b.watch(3, one)
	b.watch(4, other)
	quiet(t, b)
	for range 3 { // edges count, though nobody reads the eventfd
		signal(t, one)
		if ev := nextEvent(t, b); ev != (event{kind: eventSignal, id: 3}) {
			t.Fatalf("%+v", ev)
		}
		quiet(t, b)
	}
	b.unwatch(3)
	if ev := nextEvent(t, b); ev != (event{kind: eventGone, id: 3}) {
		t.Fatalf("%+v", ev)
	}
	signal(t, one)
	quiet(t, b)

	b.watch(3, one) // signalled before: said at once
	if ev := nextEvent(t, b); ev != (event{kind: eventSignal, id: 3}) {
		t.Fatalf("%+v", ev)
	}
	b.unwatch(3)
	b.unwatch(4)
	for range 2 {
		if ev := nextEvent(t, b); ev.kind != eventGone {
			t.Fatalf("%+v", ev)
		}
	}
	quiet(t, b)
}

func TestUnwatchBeforeArmed(t *testing.T) { eachBackend(t, testUnwatchBeforeArmed) }

func testUnwatchBeforeArmed(t *testing.T, b backend) {
	fd := eventfd(t)
	for range 3 {
		b.watch(1, fd)
		b.unwatch(1)
		if ev := nextEvent(t, b); ev != (event{kind: eventGone, id: 1}) {
			t.Fatalf("%+v", ev)
		}
	}
	b.watch(1, fd)
	b.unwatch(1)
	b.watch(2, fd)
	if ev := nextEvent(t, b); ev != (event{kind: eventGone, id: 1}) {
		t.Fatalf("%+v", ev)
	}
	quiet(t, b)
	signal(t, fd)
	if ev := nextEvent(t, b); ev != (event{kind: eventSignal, id: 2}) {
		t.Fatalf("%+v", ev)
	}
	quiet(t, b)
}

func TestWatchOfABadDescriptor(t *testing.T) { eachBackend(t, testWatchOfABadDescriptor) }

func testWatchOfABadDescriptor(t *testing.T, b backend) {
	b.watch(1, 1<<20)
	if ev := nextEvent(t, b); ev != (event{kind: eventBroken, id: 1, result: -int32(unix.EBADF)}) {
		t.Fatalf("%+v", ev)
	}
	b.unwatch(1)
	if ev := nextEvent(t, b); ev != (event{kind: eventGone, id: 1}) {
		t.Fatalf("%+v", ev)
	}
	quiet(t, b)
}

// More watches than fit into the submission queue.
func TestManyWatches(t *testing.T) { eachBackend(t, testManyWatches) }

func testManyWatches(t *testing.T, b backend) {
	var fds []int
	for i := range 3*batch + 1 {
		fds = append(fds, eventfd(t))
		b.watch(uint32(i), fds[i])
	}
	quiet(t, b)
	for i, fd := range fds {
		signal(t, fd)
		if ev := nextEvent(t, b); ev != (event{kind: eventSignal, id: uint64(i)}) {
			t.Fatalf("%+v", ev)
		}
	}
	for i := range fds {
		b.unwatch(uint32(i))
	}
	for range fds {
		if ev := nextEvent(t, b); ev.kind != eventGone {
			t.Fatalf("%+v", ev)
		}
	}
	quiet(t, b)
}

// Nothing is said about a watch once it has ended, not even what was signalled before.
func TestUnwatchAfterSignal(t *testing.T) { eachBackend(t, testUnwatchAfterSignal) }

func testUnwatchAfterSignal(t *testing.T, b backend) {
	const watches = 5
	for id := range uint32(watches) {
		fd := eventfd(t)
		signal(t, fd)
		b.watch(id, fd)
	}
	must(t, b.wait(true))
	var ev [1]event
	if b.reap(ev[:]) != 1 || ev[0].kind != eventSignal {
		t.Fatalf("%+v", ev[0])
	}
	for id := range uint32(watches) {
		b.unwatch(id)
	}
	gone := map[uint64]bool{}
	for len(gone) < watches {
		switch ev := nextEvent(t, b); {
		case gone[ev.id]:
			t.Fatalf("%+v after it was gone", ev)
		case ev.kind == eventGone:
			gone[ev.id] = true
		}
	}
	quiet(t, b)
}

// A closed backend leaves no descriptor, and goleak sees to it that it leaves no goroutine.
func TestNothingIsLeft(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	kick, fd := eventfd(t), openFile(t, "/dev/shm", 0, 1<<20)
	for kind, open := range openers {
		t.Run(engineNames[kind], func(t *testing.T) {
			lockThread(t)
			before := descriptors()
			for range 3 {
				b, _, err := open(maxCapacity)
				must(t, err)
				b.watch(1, kick)
				b.watch(2, kick) // the same, twice
				for _, capacity := range []int{64, 2000, 100, 5000} {
					must(t, b.resize(capacity, minWorkers))
					for range 50 {
						b.submit(&operation{code: opSync, fd: fd})
					}
					for range 50 {
						if ev := nextEvent(t, b); ev != (event{kind: eventDone}) {
							t.Fatalf("%+v", ev)
						}
					}
				}
				b.unwatch(1)
				nextEvent(t, b)
				must(t, b.close()) // with a watch
			}
			if after := descriptors(); after != before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
}
