package diskvm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ParseEngines reads the value of a flag -engines: some of Engines, separated by commas.
func ParseEngines(list string) ([]string, error) {
	engines := strings.Split(list, ",")
	for _, e := range engines {
		if !slices.Contains(Engines, e) {
			return nil, fmt.Errorf("-engines %s: write some of %s, separated by commas", list, strings.Join(Engines, ", "))
		}
	}
	return engines, nil
}

// ParseNumbers reads the value of a flag: numbers from 1 to most, separated by commas.
func ParseNumbers(name, list string, most int) (n []int, err error) {
	for s := range strings.SplitSeq(list, ",") {
		v, err := strconv.Atoi(s)
		if err != nil || v < 1 || v > most {
			return nil, fmt.Errorf("-%s %s: write numbers from 1 to %d, separated by commas", name, list, most)
		}
		n = append(n, v)
	}
	return n, nil
}
