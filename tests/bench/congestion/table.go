package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

func table(o options, samples []sample, leftOut []string) string {
	var u unix.Utsname
	_ = unix.Uname(&u) // a blank release if it fails, which it can't
	var b strings.Builder
	fmt.Fprintf(&b, `# More requests than a fixed engine takes

Disks are null_blk devices that take any number of requests at once and complete each %v after it came. The guest
(guest/diskbench) keeps %d reads of 4 KiB in flight on each. All disks share one engine: ebb's own, or one I/O thread of
QEMU. *Ideal* is what the disks would do if every request of the guest were in them; what is in them is the guest's rate
by the time the kernel says reads took there. Medians over %d rounds, with the lowest and the highest.

    %s

In the lab (Linux %s), %s.
`, o.latency, o.depth, o.rounds, strings.Join(append([]string{"go run ./tests/bench/congestion"}, os.Args[1:]...), " "),
		unix.ByteSliceToString(u.Release[:]), time.Now().UTC().Format(time.DateOnly))
	for _, n := range o.disks {
		demand := n * o.depth
		fmt.Fprintf(&b, "\n%d disks, %d requests, ideal %.0f IOPS:\n\n| | IOPS | in the disks, on average | p50 (ms) | p99 (ms) | slowest/fastest disk |\n|---|---|---|---|---|---|\n",
			n, demand, float64(demand)/o.latency.Seconds())
		for _, name := range candidates(samples) {
			of := func(figure func(s sample) float64) stat.Stat {
				var v []float64
				for _, s := range samples {
					if s.candidate == name && s.disks == n {
						v = append(v, figure(s))
					}
				}
				return stat.Of(v)
			}
			ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", name,
				of(func(s sample) float64 { return s.iops }).Format("%.0f"),
				of(func(s sample) float64 { return s.inFlight }).Format("%.0f"),
				of(func(s sample) float64 { return ms(s.p50) }).Format("%.0f"),
				of(func(s sample) float64 { return ms(s.p99) }).Format("%.0f"),
				of(func(s sample) float64 { return s.fairness }).Format("%.2f"))
		}
	}
	if len(leftOut) > 0 {
		fmt.Fprintf(&b, "\nLeft out:\n\n- %s\n", strings.Join(leftOut, "\n- "))
	}
	return b.String()
}

// candidates are those measured, in the order of their first sample.
func candidates(samples []sample) (names []string) {
	for _, s := range samples {
		if !slices.Contains(names, s.candidate) {
			names = append(names, s.candidate)
		}
	}
	return names
}
