package aio

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram counts durations in buckets whose width grows with the duration, eight to
// every doubling, so that what is read from it is at most an eighth too large. It begins at
// one microsecond and ends at about 19 hours; what is longer is counted in the last bucket.
//
// The engine's thread adds; any goroutine reads, without a lock.
type histogram struct {
	buckets [histogramBuckets]atomic.Uint64
	longest atomic.Int64 // nanoseconds
}

const (
	histogramSub     = 8  // buckets of each doubling
	histogramOctaves = 34 // doublings
	histogramBuckets = histogramSub * histogramOctaves
)

// bucketOf is the bucket of a duration in nanoseconds. The first eight buckets are a
// microsecond wide each; above, the three bits behind the highest one choose.
func bucketOf(ns int64) int {
	us := uint64(max(ns, 0)) / 1000
	if us < histogramSub {
		return int(us)
	}
	octave := bits.Len64(us) - 4 // 0 for 8 to 15 µs
	return min(histogramSub*(octave+1)+int(us>>octave)&(histogramSub-1), histogramBuckets-1)
}

// upperBound is the duration in nanoseconds at which a bucket ends.
func upperBound(bucket int) int64 {
	if bucket < histogramSub {
		return int64(bucket+1) * 1000
	}
	octave, sub := bucket/histogramSub-1, bucket%histogramSub
	return int64(histogramSub+sub+1) << octave * 1000
}

// add counts n durations.
func (h *histogram) add(ns int64, n uint64) {
	h.buckets[bucketOf(ns)].Add(n)
	if ns > h.longest.Load() {
		h.longest.Store(ns)
	}
}

// Latency summarises how long requests took, from submission to completion. Percentiles
// are rounded up by at most an eighth, and never beyond Max.
type Latency struct {
	P50, P99, P999, Max time.Duration
}

func (h *histogram) read() Latency {
	var counts [histogramBuckets]uint64
	total := uint64(0)
	for i := range counts {
		counts[i] = h.buckets[i].Load()
		total += counts[i]
	}
	longest := h.longest.Load()
	if total == 0 {
		return Latency{}
	}
	at := func(perMille uint64) time.Duration {
		rank, seen := (total*perMille+999)/1000, uint64(0)
		for i, n := range counts {
			if seen += n; seen >= rank {
				return time.Duration(min(upperBound(i), longest))
			}
		}
		return time.Duration(longest)
	}
	return Latency{P50: at(500), P99: at(990), P999: at(999), Max: time.Duration(longest)}
}
