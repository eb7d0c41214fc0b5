// Package stat sums up figures that were measured several times.
package stat

import (
	"fmt"
	"slices"
)

// Stat is a median with the spread. The zero value says that nothing was measured.
type Stat struct {
	Median, Low, High float64
	N                 int
}

// Of sums figures up. It sorts v.
func Of(v []float64) Stat {
	if len(v) == 0 {
		return Stat{}
	}
	slices.Sort(v)
	return Stat{Median: (v[(len(v)-1)/2] + v[len(v)/2]) / 2, Low: v[0], High: v[len(v)-1], N: len(v)}
}

// Scaled is the same in another unit.
func (s Stat) Scaled(by float64) Stat {
	s.Median, s.Low, s.High = s.Median*by, s.Low*by, s.High*by
	return s
}

// Format is "351 (340–360)", with a verb of fmt for each figure.
func (s Stat) Format(verb string) string {
	if s.N == 0 {
		return "–"
	}
	return fmt.Sprintf(verb+" ("+verb+"–"+verb+")", s.Median, s.Low, s.High)
}
