package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

func table(o options, samples []sample) string {
	var u unix.Utsname
	_ = unix.Uname(&u) // a blank release if it fails, which it can't
	var b strings.Builder
	fmt.Fprintf(&b, `# A slow disk beside a fast one

Two null_blk devices, each of which takes any number of requests at once and completes each after a fixed time: %v the fast
one, %v the slow one. The guest (guest/diskbench) keeps %d requests of 4 KiB outstanding on each, and ebb runs with
`+"`--aio-max %d`"+`: what they want together is twice what the engine takes. *Kept* is the fast disk's rate beside the slow one
by its rate alone, in the same round. With flushes three requests in ten are writes, with a flush after every %d; they reach
the devices, which have a write cache. A disk that hangs was at work before, and then answers nothing any more (dmsetup suspend).
Medians over %d rounds, with the lowest and the highest.

    %s

In the lab (Linux %s), %s. Its emulated processor can't do the 64000 requests a second that 1 ms would make; the
devices' times are chosen so that it is not what limits the fast one.

| engine | load | fast disk alone, IOPS | beside the slow one | kept | slow disk, IOPS |
|---|---|---|---|---|---|
`, o.fast, o.slow, o.depth, o.most, o.flush, o.rounds,
		strings.Join(append([]string{"go run ./tests/bench/sharedtags"}, os.Args[1:]...), " "),
		unix.ByteSliceToString(u.Release[:]), time.Now().UTC().Format(time.DateOnly))
	for _, load := range []string{reads, flushes, hung} {
		for _, engine := range o.engines {
			of := func(figure func(s sample) float64) stat.Stat {
				var v []float64
				for _, s := range samples {
					if s.engine == engine && s.load == load {
						v = append(v, figure(s))
					}
				}
				return stat.Of(v)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", engine, load,
				of(func(s sample) float64 { return s.alone }).Format("%.0f"),
				of(func(s sample) float64 { return s.beside }).Format("%.0f"),
				of(func(s sample) float64 { return 100 * s.beside / s.alone }).Format("%.1f %%"),
				of(func(s sample) float64 { return s.slow }).Format("%.0f"))
		}
	}
	return b.String()
}
