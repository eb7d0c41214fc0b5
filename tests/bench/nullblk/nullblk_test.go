package nullblk

import (
	"testing"
	"time"
)

func TestMeanTime(t *testing.T) {
	before := Counters{Reads: 10, Took: 5 * time.Second}
	if got := (Counters{Reads: 14, Took: 7 * time.Second}).MeanSince(before); got != 500*time.Millisecond {
		t.Errorf("mean %v", got)
	}
	if got := before.MeanSince(before); got != 0 {
		t.Errorf("mean of nothing %v", got)
	}
}
