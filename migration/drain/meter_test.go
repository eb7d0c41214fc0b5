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
