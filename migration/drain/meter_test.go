package drain

import (
	"testing"
	"time"
)

// A disk that does all at once has its window full most of the time, but not always; a guest that asks for less hardly ever.
func TestBound(t *testing.T) {
	for _, c := range []struct {
		inFlight []int
		bound    bool
	}{
		{[]int{14, 14, 0, 14, 14, 3}, true},
		{[]int{14, 3, 4, 9, 2, 5}, false},
	} {
		var m meter
		for i, n := range c.inFlight {
			m.tick(time.Duration(i)*5*ms, Sample{InFlight: n}, 14)
		}
		if m.bound() != c.bound {
			t.Errorf("%v in flight under a window of 14: bound %v", c.inFlight, m.bound())
		}
	}
}

// A disk whose driver is started anew counts from 0 again.
func TestMeterBeginsAnew(t *testing.T) {
	var m meter
	for i, completed := range []uint64{1000, 1010, 0, 10, 20} {
		m.tick(time.Duration(i)*100*ms, Sample{Completed: completed}, 14)
	}
	if m.rate() != 100 {
		t.Errorf("%v a second, want 100", m.rate())
	}
	d := disk{budget: 100 * ms, law: serial{}}
	going := func(length time.Duration, completed uint64) {
		s := Sample{InFlight: 1, Completed: completed}
		s.Going.Length, s.Going.InFlight = length, 1
		d.observe(d.now+length, s)
	}
	going(10*ms, 1000)
	going(1100*ms, 3)
	if d.hung() {
		t.Errorf("it is taken to hang, for %v", d.silence())
	}
}
