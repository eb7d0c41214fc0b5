package main

import (
	"fmt"
	"slices"

	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// setup is what is varied.
type setup struct {
	Place        string // onTmpfs or onFile
	Disks, Depth int
}

func (s setup) String() string {
	return fmt.Sprintf("%s, %d disks, depth %d", s.Place, s.Disks, s.Depth)
}

// result is one measurement. Latencies are microseconds.
type result struct {
	IOPS           float64
	P50, P99, P999 float64
	Fairness       float64 // the slowest disk's rate by the fastest one's
	Kicks          int64
}

type sample struct {
	Round     int
	Candidate string
	Setup     setup
	Result    result
}

// record is a whole run.
type record struct {
	Command, Host string
	LeftOut       []string
	Samples       []sample
}

func iops(r result) float64     { return r.IOPS }
func fairness(r result) float64 { return r.Fairness }
func p50(r result) float64      { return r.P50 }
func p99(r result) float64      { return r.P99 }

// byRound returns one figure of each round.
func (r *record) byRound(candidate string, s setup, figure func(result) float64) map[int]float64 {
	m := map[int]float64{}
	for _, x := range r.Samples {
		if x.Candidate == candidate && x.Setup == s {
			m[x.Round] = figure(x.Result)
		}
	}
	return m
}

func (r *record) stat(candidate string, s setup, figure func(result) float64) stat.Stat {
	var v []float64
	for _, x := range r.byRound(candidate, s, figure) {
		v = append(v, x)
	}
	return stat.Of(v)
}

// ratio compares rates round by round, so that what slows a whole round down does
// not count.
func (r *record) ratio(a string, sa setup, b string, sb setup) stat.Stat {
	below := r.byRound(b, sb, iops)
	var v []float64
	for round, x := range r.byRound(a, sa, iops) {
		if y := below[round]; y > 0 {
			v = append(v, x/y)
		}
	}
	return stat.Of(v)
}

// setups are those measured, in the order of their first sample.
func (r *record) setups(place string) (list []setup) {
	for _, x := range r.Samples {
		if x.Setup.Place == place && !slices.Contains(list, x.Setup) {
			list = append(list, x.Setup)
		}
	}
	return list
}

// measured are the candidates with samples, in the order of the first one.
func (r *record) measured() (names []string) {
	for _, x := range r.Samples {
		if !slices.Contains(names, x.Candidate) {
			names = append(names, x.Candidate)
		}
	}
	return names
}

func (r *record) rounds() (n int) {
	for _, x := range r.Samples {
		n = max(n, x.Round+1)
	}
	return n
}
