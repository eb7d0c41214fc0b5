package migration

import (
	"testing"
	"time"
)

func TestClockAhead(t *testing.T) {
	asked := time.Now()
	for _, c := range []struct{ took, theirs, ahead time.Duration }{
		{10 * time.Millisecond, 5 * time.Millisecond, 0},
		{10 * time.Millisecond, 0, 0},
		{10 * time.Millisecond, 10 * time.Millisecond, 0},
		{10 * time.Millisecond, 11 * time.Millisecond, 6 * time.Millisecond},
		{10 * time.Millisecond, -1 * time.Millisecond, -6 * time.Millisecond},
		{10 * time.Millisecond, time.Hour + 5*time.Millisecond, time.Hour},
	} {
		if got := clockAhead(asked, c.took, asked.UnixNano()+int64(c.theirs)); got != c.ahead {
			t.Errorf("an answer after %v, by a clock that shows %v since it was asked for: ahead by %v, want %v", c.took, c.theirs, got, c.ahead)
		}
	}
}
