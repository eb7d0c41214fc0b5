package aio

import (
	"fmt"
	"testing"
)

// served runs disks with limits for a while, after their bursts are used up, and returns
// what each completed in four seconds.
func served(t *testing.T, s *simulation, queues []*closedQueue) []int {
	t.Helper()
	s.run(s.clock + 6*second)
	before := make([]int, len(queues))
	for i, q := range queues {
		before[i] = q.completed
	}
	s.run(s.clock + 4*second)
	done := make([]int, len(queues))
	for i, q := range queues {
		done[i] = q.completed - before[i]
	}
	return done
}

func within(got, want, percent int) bool {
	return got*100 >= want*(100-percent) && got*100 <= want*(100+percent)
}

func TestLimitsAreAccurate(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		size   int // bytes of a request
		want   int // requests in a second
	}{
		{Limits{IOPS: Rate{PerSecond: 7}}, 512, 7},
		{Limits{IOPS: Rate{PerSecond: 200}}, 512, 200},
		{Limits{IOPS: Rate{PerSecond: 200, Burst: 1}}, 512, 200},
		{Limits{IOPS: Rate{PerSecond: 10000, Burst: 20000}}, 512, 10000},
		{Limits{BPS: Rate{PerSecond: 1 << 20}}, 4096, 256},
		{Limits{BPS: Rate{PerSecond: 1000, Burst: 1}}, 4096, 0}, // one in four seconds
		{Limits{IOPS: Rate{PerSecond: 100}, BPS: Rate{PerSecond: 1 << 20}}, 4096, 100},
		{Limits{IOPS: Rate{PerSecond: 1000}, BPS: Rate{PerSecond: 1 << 20}}, 4096, 256},
	} {
		t.Run(fmt.Sprintf("%+v", c.limits), func(t *testing.T) {
			s := simulate(t, 0, byDisk(millisecond, millisecond))
			b := make([]byte, c.size)
			_, limited := s.disk(t, PortConfig{Name: "limited", FD: 0, Demand: 64, Limits: c.limits}, 64,
				func() testRequest { return rw(Write, 0, 0, b) })
			_, free := s.disk(t, PortConfig{Name: "free", FD: 1, Demand: 64}, 2, smallReads())
			got := served(t, s, []*closedQueue{limited, free})
			if !within(got[0], c.want*4, 1) && got[0]-c.want*4 > 3 {
				t.Errorf("%d requests in four seconds, want %d", got[0], c.want*4)
			}
			if got[1] != 8000 {
				t.Errorf("the disk without a limit has %d requests, want 8000", got[1])
			}
		})
	}
}

// After a pause a burst comes at once, and no more than that.
func TestBurst(t *testing.T) {
	s := simulate(t, 0, byDisk(microsecond))
	p, q := s.disk(t, PortConfig{Name: "a", Demand: 64, Limits: Limits{IOPS: Rate{PerSecond: 100, Burst: 50}}}, 64, smallReads())
	s.run(s.clock + millisecond)
	if q.completed != 50 {
		t.Errorf("%d at once, want 50", q.completed)
	}
	if w := p.Stats().Windows; w[CauseLimit] != 0 || w[CauseGroup] != Unlimited || p.Stats().Window != 0 {
		t.Errorf("windows %v", w)
	}
	q.depth = 0
	s.run(s.clock + 60*second)
	q.depth, q.completed = 64, 0
	s.signal(q.port)
	s.run(s.clock + millisecond)
	if q.completed < 50 || q.completed > 51 {
		t.Errorf("%d after a minute, want 50", q.completed)
	}
}

// The members of a group share what it has alike, whatever their depth; who is idle takes
// nothing; flushes are free.
func TestGroups(t *testing.T) {
	s := simulate(t, 0, byDisk(millisecond, 5*millisecond, millisecond, millisecond))
	g, err := s.e.NewGroup("g", Limits{IOPS: Rate{PerSecond: 300}})
	must(t, err)
	var queues []*closedQueue
	for fd, depth := range []int{64, 8, 1} {
		_, q := s.disk(t, PortConfig{Name: fmt.Sprint(fd), FD: fd, Demand: 64, Group: g}, depth, smallReads())
		queues = append(queues, q)
	}
	for i, n := range served(t, s, queues) {
		if !within(n, 400, 5) {
			t.Errorf("disk %d of three has %d requests, want 400", i, n)
		}
	}
	queues[0].depth = 0
	for i, n := range served(t, s, queues)[1:] {
		if !within(n, 600, 5) {
			t.Errorf("disk %d of the other two has %d requests, want 600", i+1, n)
		}
	}
}

func TestFlushesAreFree(t *testing.T) {
	s := simulate(t, 0, byDisk(millisecond))
	_, q := s.disk(t, PortConfig{Name: "a", Demand: 64, Limits: Limits{IOPS: Rate{PerSecond: 100}}}, 8, withFlushes(2))
	if n := served(t, s, []*closedQueue{q})[0]; !within(n, 800, 1) {
		t.Errorf("%d requests, want 400 reads and as many flushes", n)
	}
}

// A port that is detached while it waits for its limit goes at once.
func TestDetachWhileLimited(t *testing.T) {
	s := simulate(t, 0, byDisk(millisecond))
	p, _ := s.disk(t, PortConfig{Name: "a", Demand: 64, Limits: Limits{IOPS: Rate{PerSecond: 1}}}, 8, smallReads())
	s.run(s.clock + second)
	gone := false
	p.detach(func() { gone = true })
	s.run(s.clock + 2*millisecond)
	if !gone {
		t.Error("it is not gone")
	}
	s.run(s.clock + 5*second) // the limiter lets a port go that isn't there
}

func TestBadLimits(t *testing.T) {
	for _, l := range []Limits{
		{IOPS: Rate{PerSecond: -1}}, {BPS: Rate{PerSecond: -1}}, {IOPS: Rate{Burst: 1}}, {IOPS: Rate{PerSecond: 1, Burst: -1}},
		{BPS: Rate{PerSecond: maxRate + 1}},
	} {
		if l.Validate() == nil {
			t.Errorf("%+v is valid", l)
		}
		cfg := PortConfig{Name: "a", Limits: l}
		if cfg.validate() == nil {
			t.Errorf("a port with %+v is valid", l)
		}
	}
}
