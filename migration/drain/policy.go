package drain

import "fmt"

// Policy is how the disks are prepared for the stop.
type Policy uint8

const (
	Adaptive Policy = iota // windows follow the disks' own grace periods
	Serial                 // one request at a time
	Off                    // nothing is done, and nothing bounds the wait after the stop: the baseline
)

var policies = []string{"adaptive", "serial", "off"}

// String returns the policy's name as --drain spells it.
func (p Policy) String() string { return policies[p] }

// ParsePolicy is String's opposite.
func ParsePolicy(s string) (Policy, error) {
	for i, name := range policies {
		if s == name {
			return Policy(i), nil
		}
	}
	return 0, fmt.Errorf("--drain %q: adaptive, serial or off", s)
}
