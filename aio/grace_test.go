package aio

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A grace period is what a drain would have taken: on a disk of constant latency a little
// less than that, for the requests in flight have been for a while.
func TestGracePeriods(t *testing.T) {
	for _, depth := range []int{1, 8, 64} {
		s := simulate(t, 0, byDisk(20*millisecond))
		p, _ := s.disk(t, PortConfig{Name: "a", Demand: 64}, depth, smallReads())
		s.run(s.clock + 10*second)
		g := p.Stats().Grace
		if g.Count < 100 || g.P95 > 20*time.Millisecond || g.P95 < 10*time.Millisecond {
			t.Errorf("depth %d: %+v", depth, g)
		}
	}
}

// Drains begun at random times take as long as the grace periods say, also when one request
// in a hundred is ten times as slow.
func TestGracePeriodsForetellDrains(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s := simulate(t, 0, func(*operation) int64 {
		if random.IntN(100) == 0 {
			return 50 * millisecond
		}
		return 5*millisecond + random.Int64N(millisecond)
	})
	p, _ := s.disk(t, PortConfig{Name: "a", Demand: 16}, 16, smallReads())
	var drains int64
	const samples = 100
	for range samples {
		s.run(s.clock + 200*millisecond + random.Int64N(50*millisecond))
		begin := s.clock
		p.setBound(CauseDrain, 0)
		for p.inFlight > 0 {
			s.run(s.clock + 100*microsecond)
		}
		drains += s.clock - begin
		p.setBound(CauseDrain, Unlimited)
		s.run(s.clock + 5*millisecond)
	}
	mean, count := int64(0), min(p.grace.samples.count.Load(), 64)
	for i := range count {
		mean += p.grace.samples.ring[i].length.Load() / int64(count)
	}
	if drained := drains / samples; mean*10 < drained*8 || mean*10 > drained*15 {
		t.Errorf("grace periods of %v on average, drains of %v", time.Duration(mean), time.Duration(drained))
	}
}

// The age of one that doesn't end is seen while it lasts.
func TestOpenGracePeriod(t *testing.T) {
	latency := []int64{millisecond}
	s := simulate(t, 0, func(*operation) int64 { return latency[0] })
	p, _ := s.disk(t, PortConfig{Name: "a", Demand: 4}, 4, smallReads())
	s.run(s.clock + second)
	latency[0] = 100 * millisecond
	s.run(s.clock + 50*millisecond)
	if open := p.Stats().Grace.Open; open < 40*time.Millisecond {
		t.Errorf("open for %v", open)
	}
	latency[0] = millisecond
	s.run(s.clock + 200*millisecond)
	if g := p.Stats().Grace; g.Open > 10*time.Millisecond {
		t.Errorf("still open: %+v", g)
	}
}

// Whoever asks in time gets every grace period once, with what it waited for.
func TestGraces(t *testing.T) {
	s := simulate(t, 0, func(op *operation) int64 {
		if op.code == opSync {
			return 50 * millisecond
		}
		return 20 * millisecond
	})
	p, _ := s.disk(t, PortConfig{Name: "a", Demand: 8}, 8, withFlushes(40))
	var all, some []GracePeriod
	var count uint64
	for range 200 {
		s.run(s.clock + 10*millisecond)
		before := count
		some, count, _ = p.Graces(count, some[:0])
		if uint64(len(some)) != count-before {
			t.Fatalf("%d grace periods from %d to %d", len(some), before, count)
		}
		all = append(all, some...)
	}
	long := 0
	for i, g := range all[1:] { // the first began before the guest did
		if g.InFlight < 1 || g.InFlight > 8 || g.Length > 50*time.Millisecond {
			t.Errorf("number %d: %+v", i, g)
		}
		if g.Long {
			long++
		} else if g.Length > 20*time.Millisecond {
			t.Errorf("number %d without a flush: %+v", i, g)
		}
	}
	if len(all) < 50 || long == 0 || long == len(all) {
		t.Errorf("%d grace periods, %d with a flush", len(all), long)
	}
	if last, _, _ := p.Graces(0, nil); len(last) > 64 || !slices.Equal(last, all[len(all)-len(last):]) {
		t.Error("the latest are not the last of all")
	}
	if _, _, open := p.Graces(count, nil); open.InFlight < 1 || open.Length > 50*time.Millisecond {
		t.Errorf("open: %+v", open)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for ns := int64(1); ns < 1<<50; ns = ns*9/8 + 1 {
		bucket := bucketOf(ns)
		if bound := upperBound(bucket); bucket < histogramBuckets-1 && (bound < ns || bound > max(ns*9/8+1, ns+1000)) {
			t.Fatalf("%d ns is in bucket %d, which ends at %d", ns, bucket, bound)
		}
		if bucket > 0 && upperBound(bucket-1) > ns {
			t.Fatalf("%d ns is in bucket %d, but fits the one before, which ends at %d", ns, bucket, upperBound(bucket-1))
		}
	}
	if h.read() != (Latency{}) {
		t.Error("an empty histogram has a latency")
	}
	for i := range int64(1000) {
		h.add((i+1)*millisecond, 1)
	}
	l := h.read()
	for _, c := range []struct{ got, want time.Duration }{
		{l.P50, 500 * time.Millisecond}, {l.P99, 990 * time.Millisecond}, {l.P999, 999 * time.Millisecond}, {l.Max, time.Second},
	} {
		if c.got < c.want || c.got > c.want*9/8 {
			t.Errorf("%+v", l)
		}
	}
}
