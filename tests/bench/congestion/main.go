// Command congestion measures what becomes of more requests than an engine of fixed
// length takes: 16 and 32 disks with 128 requests each, on disks that answer any number
// at once but take their time:
//
//	make bench-congestion
//
// The disks are null_blk devices with a timer, so it runs in the lab (tests/lab). With
// N requests in the disks and a latency of L, N/L are done a second: the rate tells how
// many an engine keeps in flight. The latency is so long that the lab's processor is not
// what limits the rate.
//
//	main.go     flags, the way into the lab, the rounds
//	table.go    docs/bench/congestion.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/bench/diskvm"
	"github.com/ebb-vmm/ebb/tests/bench/harness"
	"github.com/ebb-vmm/ebb/tests/bench/nullblk"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

type options struct {
	disks           []int
	engines         []string
	depth           int
	latency         time.Duration
	rounds, seconds int
	ebb, doc        string
}

func main() {
	harness.Main("congestion", func(ctx context.Context) error {
		o, err := parseFlags()
		if err != nil {
			return err
		}
		l := lab.Options{Deadline: time.Hour, Shares: []string{filepath.Dir(o.doc)}}
		return nullblk.InLab(ctx, l, func(ctx context.Context) error { return run(ctx, o) })
	})
}

func parseFlags() (options, error) {
	var o options
	disks := flag.String("disks", "16,32", "`NUMBERS` of disks")
	engines := flag.String("engines", strings.Join(diskvm.Engines, ","), "`ENGINES` of ebb and QEMU")
	flag.IntVar(&o.depth, "depth", 128, "requests in flight per disk")
	flag.DurationVar(&o.latency, "latency", 500*time.Millisecond, "what a request takes in a disk")
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.IntVar(&o.seconds, "seconds", 10, "length of one measurement")
	flag.StringVar(&o.ebb, "ebb", "build/ebb", "the ebb to measure")
	flag.StringVar(&o.doc, "doc", "docs/bench/congestion.md", "the `FILE` to write")
	flag.Parse()
	var err1, err2, err3 error
	o.disks, err1 = diskvm.ParseNumbers("disks", *disks, 64)
	o.engines, err2 = diskvm.ParseEngines(*engines)
	if o.depth < 1 || o.depth > 341 || o.rounds < 1 || o.seconds < 1 || o.latency < time.Microsecond {
		err3 = errors.New("-depth has to be 1 to 341, -rounds and -seconds at least 1, -latency at least 1us")
	}
	return o, errors.Join(err1, err2, err3)
}

// sample is one measurement.
type sample struct {
	candidate string
	disks     int
	iops      float64
	inFlight  float64 // in the disks, on average: rate × mean time in the disks
	p50, p99  time.Duration
	fairness  float64
}

func run(ctx context.Context, o options) error {
	build, err := guest.BuildDir()
	if err != nil {
		return err
	}
	kernel, err := guest.BuildDiskBench(ctx, build)
	if err != nil {
		return err
	}
	devices, err := nullblk.Make(o.depth, slices.Repeat([]time.Duration{o.latency}, slices.Max(o.disks))...)
	defer devices.Remove()
	if err != nil {
		return err
	}
	var samples []sample
	var leftOut []string
	refused := map[string]bool{}
	for round := range o.rounds {
		for _, n := range o.disks {
			for _, engine := range o.engines {
				vmms := []string{"ebb", "QEMU"}
				if round%2 == 1 {
					slices.Reverse(vmms) // nobody always comes after the same neighbour
				}
				for _, vmm := range vmms {
					name := vmm + " " + engine
					if refused[name] {
						continue
					}
					s, err := measure(ctx, o, vmm, engine, kernel, devices[:n])
					if errors.Is(err, diskvm.ErrRefused) {
						fmt.Printf("%s: %v\n", name, err)
						refused[name] = true
						leftOut = append(leftOut, fmt.Sprintf("%s: %v", name, err))
						continue
					}
					if err != nil {
						return fmt.Errorf("%s, %d disks: %w", name, n, err)
					}
					fmt.Printf("round %d  %2d disks  %-12s %8.0f IOPS  %5.0f in flight  p50 %v  p99 %v  slowest/fastest %.2f\n",
						round+1, n, name, s.iops, s.inFlight, s.p50, s.p99, s.fairness)
					samples = append(samples, s)
				}
			}
		}
	}
	if err := os.WriteFile(o.doc, []byte(table(o, samples, leftOut)), 0o644); err != nil {
		return err
	}
	fmt.Println("written:", o.doc)
	return nil
}

func measure(ctx context.Context, o options, vmm, engine, kernel string, devices nullblk.Devices) (sample, error) {
	queueSize := 1
	for queueSize < 3*o.depth {
		queueSize *= 2
	}
	m := diskvm.Machine{
		Kernel: kernel, Engine: engine, Images: devices.Paths(), QueueSize: queueSize,
		Cmdline: fmt.Sprintf("depth=%d mode=read seconds=%d", o.depth, o.seconds),
	}
	argv := m.QEMU()
	if vmm == "ebb" {
		argv = m.EBB(o.ebb)
	}
	before, err := devices.Counters()
	if err != nil {
		return sample{}, err
	}
	b, err := diskvm.Run(ctx, 5*time.Minute, argv)
	if err != nil {
		return sample{}, err
	}
	after, err := devices.Counters()
	return sample{
		candidate: vmm + " " + engine, disks: len(devices),
		iops: b.IOPS, inFlight: b.IOPS * after.MeanSince(before).Seconds(), p50: b.P50, p99: b.P99, fairness: b.Fairness(),
	}, err
}
