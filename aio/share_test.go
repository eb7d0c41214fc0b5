package aio

import (
	"fmt"
	"testing"
)

// byDisk takes as long as its disk's entry says, by file descriptor.
func byDisk(latency ...int64) func(*operation) int64 {
	return func(op *operation) int64 { return latency[op.fd] }
}

const second = 1000 * millisecond

// two runs two disks beside each other on an engine with 64 credits, after a start in which
// the slow one has them for itself, and returns what they completed in two seconds.
func two(t *testing.T, latency []int64, fastDepth int, request func() testRequest) (fast, flushes, slow int) {
	s := simulate(t, 64, byDisk(latency...))
	var slowQueue *closedQueue
	if len(latency) > 1 {
		_, slowQueue = s.disk(t, PortConfig{Name: "slow", FD: 1, Demand: 256}, 128, smallReads())
		s.run(2 * second)
	}
	_, q := s.disk(t, PortConfig{Name: "fast", FD: 0, Demand: 256}, fastDepth, request)
	s.run(s.clock + second)
	before, beforeLong, beforeSlow := q.completed, q.long, 0
	if slowQueue != nil {
		beforeSlow = slowQueue.completed
	}
	s.run(s.clock + 2*second)
	if slowQueue != nil {
		slow = slowQueue.completed - beforeSlow
	}
	return q.completed - before, q.long - beforeLong, slow
}

// The shared-tags test of blktests (block/035), with flushes among the requests and with a
// disk that hangs: a fast disk keeps its speed beside a slow one that wants every credit.
func TestSlowDiskTakesNothingFromAFastOne(t *testing.T) {
	for _, c := range []struct {
		name  string
		other int64
		least int // what the slow disk must get in two seconds
	}{
		{"slow", 100 * millisecond, 32 * 10 * 2 * 9 / 10}, // its share, 32, ten times a second
		{"hung", never, 0},
	} {
		for _, depth := range []int{1, 32, 64} {
			for _, mix := range []struct {
				name string
				make func() func() testRequest
			}{{"reads", smallReads}, {"flushes", func() func() testRequest { return withFlushes(50) }}} {
				t.Run(fmt.Sprintf("%s/%d/%s", c.name, depth, mix.name), func(t *testing.T) {
					alone, aloneLong, _ := two(t, []int64{millisecond}, depth, mix.make())
					beside, besideLong, slow := two(t, []int64{millisecond, c.other}, depth, mix.make())
					t.Logf("alone %d (%d flushes), beside %d (%d), slow disk %d", alone, aloneLong, beside, besideLong, slow)
					if beside*100 < alone*95 || besideLong*100 < aloneLong*95 {
						t.Error("the fast disk has less than 95 % of its speed alone")
					}
					if slow < c.least {
						t.Errorf("the slow disk completed %d, want %d or more", slow, c.least)
					}
				})
			}
		}
	}
}

// A request that another port's would have the credit of is written off when it has taken twice the
// usual time, and not before.
func TestWriteOffAge(t *testing.T) {
	const usual = 40 * millisecond
	s := simulate(t, 64, byDisk(usual, never))
	s.disk(t, PortConfig{Name: "fast", FD: 0, Demand: 256}, 64, smallReads())
	s.run(s.clock + 10*usual) // they tell the engine what is usual
	s.disk(t, PortConfig{Name: "hung", FD: 1, Demand: 256}, 64, smallReads())
	begin := s.clock
	s.run(begin + 2*usual - 1)
	if s.e.writtenOff != 0 {
		t.Errorf("%d written off before their time", s.e.writtenOff)
	}
	s.run(begin + 2*usual + 1)
	if s.e.writtenOff == 0 {
		t.Errorf("nothing written off of %d in flight", s.e.inFlight)
	}
}

// On disks that are equally slow nothing is written off, whatever their latency.
func TestNothingIsWrittenOffAmongEquals(t *testing.T) {
	for _, latency := range []int64{millisecond, 20 * millisecond, second} {
		s := simulate(t, 64, byDisk(latency, latency, latency))
		var ports []*Port
		var queues []*closedQueue
		for fd := range 3 {
			p, q := s.disk(t, PortConfig{Name: fmt.Sprint(fd), FD: fd, Demand: 256}, 256, smallReads())
			ports, queues = append(ports, p), append(queues, q)
		}
		s.run(s.clock + 20*latency) // the first requests tell the engine what is usual
		for range 100 {
			s.run(s.clock + latency)
			if s.e.writtenOff != 0 || s.e.inFlight != 64 {
				t.Fatalf("latency %d: %d in flight, %d written off", latency, s.e.inFlight, s.e.writtenOff)
			}
		}
		for i, p := range ports {
			if p.inFlight < 21 || p.inFlight > 22 || queues[i].completed < 100*21 {
				t.Errorf("latency %d: disk %d has %d in flight, %d completed", latency, i, p.inFlight, queues[i].completed)
			}
		}
	}
}

// Disks that become slow together are equals again soon: what is in flight is no more than the capacity.
func TestAllBecomeSlow(t *testing.T) {
	latency := int64(100 * microsecond)
	s := simulate(t, 64, func(*operation) int64 { return latency })
	for fd := range 3 {
		s.disk(t, PortConfig{Name: fmt.Sprint(fd), FD: fd, Demand: 256}, 256, smallReads())
	}
	s.run(s.clock + 100*millisecond)
	latency = 20 * millisecond
	s.run(s.clock + second)
	if s.e.writtenOff != 0 || s.e.inFlight != 64 {
		t.Errorf("%d in flight, %d written off", s.e.inFlight, s.e.writtenOff)
	}
}

func TestWeights(t *testing.T) {
	s := simulate(t, 100, byDisk(millisecond, millisecond, millisecond))
	weights := []int{100, 200, 300}
	var queues []*closedQueue
	for fd, w := range weights {
		_, q := s.disk(t, PortConfig{Name: fmt.Sprint(fd), FD: fd, Demand: 256, Weight: w}, 256, smallReads())
		queues = append(queues, q)
	}
	s.run(s.clock + 10*second)
	// reserve 4 each, 88 credits by weight: 18, 33 and 48
	for i, want := range []int{18, 33, 48} {
		if got := queues[i].completed / 10000; got < want-1 || got > want+1 {
			t.Errorf("weight %d: %d in flight on average, want %d", weights[i], got, want)
		}
	}
}

// What one disk doesn't use another may have, at once, and it is back as soon as the loans complete.
func TestIdleCreditsAreLent(t *testing.T) {
	s := simulate(t, 64, byDisk(10*millisecond, 10*millisecond))
	a, _ := s.disk(t, PortConfig{Name: "a", FD: 0, Demand: 256}, 256, smallReads())
	b, q := s.disk(t, PortConfig{Name: "b", FD: 1, Demand: 256}, 0, smallReads())
	s.run(s.clock + 100*millisecond)
	if a.inFlight != 60 || s.e.lent != 28 {
		t.Errorf("%d in flight, %d lent, want 60 (all but the other's reserve) and 28", a.inFlight, s.e.lent)
	}
	q.depth = 256
	s.signal(b.queues[0])
	s.rest(s.e)
	if b.inFlight != 4 {
		t.Errorf("%d in flight at once, want the reserve, 4", b.inFlight)
	}
	s.run(s.clock + 11*millisecond)
	if a.inFlight != 32 || b.inFlight != 32 || s.e.lent != 0 {
		t.Errorf("%d and %d in flight, %d lent, want 32 each", a.inFlight, b.inFlight, s.e.lent)
	}
}

// More disks than credits, all of them with one hung disk that has every credit: the engine's
// timer finds out, for nothing else happens.
func TestHungDiskAmongMoreDisksThanCredits(t *testing.T) {
	const disks = 5
	s := simulate(t, 3, byDisk(never, millisecond, millisecond, millisecond, millisecond))
	hung, _ := s.disk(t, PortConfig{Name: "hung", FD: 0, Demand: 256}, 64, smallReads())
	s.run(s.clock + second)
	if hung.inFlight != 3 {
		t.Fatalf("%d in flight", hung.inFlight)
	}
	var queues []*closedQueue
	for fd := 1; fd < disks; fd++ {
		_, q := s.disk(t, PortConfig{Name: fmt.Sprint(fd), FD: fd, Demand: 256}, 16, smallReads())
		queues = append(queues, q)
	}
	s.run(s.clock + 10*second)
	for i, q := range queues {
		if q.completed < 7000 { // 3 credits, 1 ms, 4 disks: 7500
			t.Errorf("disk %d completed %d", i+1, q.completed)
		}
	}
	if hung.inFlight != 3 {
		t.Errorf("the hung disk has %d in flight", hung.inFlight)
	}
}

// More disks than credits, of which one has each and hangs, all at once: the timer is set although the pass had no room left, either.
func TestAllCreditsHangAtOnce(t *testing.T) {
	s := simulate(t, batch, func(op *operation) int64 {
		if op.fd < batch {
			return never
		}
		return millisecond
	})
	var ports []*Port
	var last *closedQueue
	for fd := range batch + 1 {
		var p *Port
		p, last = s.disk(t, PortConfig{Name: fmt.Sprint(fd), FD: fd, Demand: 16, Held: true}, 1, smallReads())
		p.handOver = handAll // the kernel isn't fed in between
		ports = append(ports, p)
	}
	s.rest(s.e)
	s.fakeBackend.batch = batch
	for _, p := range ports {
		p.setBound(CausePause, Unlimited)
	}
	if s.e.pass(); s.e.inFlight != batch || s.alarm == 0 {
		t.Errorf("%d in flight, and the engine is to be woken at %d", s.e.inFlight, s.alarm)
	}
	s.run(s.clock + 3*second)
	if last.completed == 0 {
		t.Errorf("%d in flight, %d written off, and the disk that answers gets nothing", s.e.inFlight, s.e.writtenOff)
	}
}

// A disk with as many in flight as there are credits wants no more, and nothing of others' is written off for it.
func TestFullDiskWaitsForNothing(t *testing.T) {
	s := simulate(t, 64, byDisk(millisecond, never))
	hung, _ := s.disk(t, PortConfig{Name: "hung", FD: 1, Demand: 256}, 128, smallReads())
	s.run(s.clock + second)
	fast, _ := s.disk(t, PortConfig{Name: "fast", FD: 0, Demand: 256}, 16, smallReads())
	s.run(s.clock + second)
	if hung.inFlight != 64 || fast.inFlight != 16 || s.e.waits(fast) {
		t.Errorf("%d of the hung disk's in flight, %d of the other's; somebody waits beside it: %v", hung.inFlight, fast.inFlight, s.e.waits(fast))
	}
}

// A hung disk that answers at last gives everything back.
func TestWrittenOffRequestsComeBack(t *testing.T) {
	s := simulate(t, 64, byDisk(millisecond, never))
	hung, q := s.disk(t, PortConfig{Name: "hung", FD: 1, Demand: 256}, 100, smallReads())
	s.run(s.clock + second)
	stuck := append([]operation(nil), s.stuck...)
	_, fast := s.disk(t, PortConfig{Name: "fast", FD: 0, Demand: 256}, 64, smallReads())
	s.run(s.clock + second)
	if hung.writtenOff == 0 || hung.writtenOff != s.e.writtenOff || s.e.backed < 64+hung.writtenOff {
		t.Fatalf("%d of the disk's are written off, %d of the engine's, %d backed", hung.writtenOff, s.e.writtenOff, s.e.backed)
	}
	q.depth, fast.depth = 0, 0
	for i := range stuck {
		s.answer(&stuck[i], 512)
	}
	s.run(s.clock + second)
	if q.completed != len(stuck) || s.e.writtenOff != 0 || s.e.inFlight != 0 || s.e.backed != 64 || s.e.setAside != 8 {
		t.Errorf("%d of %d completed, %d written off, %d in flight, %d backed, %d set aside",
			q.completed, len(stuck), s.e.writtenOff, s.e.inFlight, s.e.backed, s.e.setAside)
	}
}
