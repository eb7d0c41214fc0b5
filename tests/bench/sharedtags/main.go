// Command sharedtags measures what a slow disk takes from a fast one when both share an
// engine that has room for fewer requests than they want (after block/035 of blktests):
//
//	make bench-sharedtags
//
// The disks are null_blk devices with a timer, so it runs in the lab (tests/lab). Their
// times are so long that the lab's processor is not what limits the fast disk.
//
//	main.go   flags, the way into the lab, the rounds
//	hung.go   beside a disk that hangs for good
//	table.go  docs/bench/sharedtags.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/tests/bench/diskvm"
	"github.com/ebb-vmm/ebb/tests/bench/harness"
	"github.com/ebb-vmm/ebb/tests/bench/nullblk"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// maxLatency is the most that a device may take: after 5 s null_blk fails a request.
const maxLatency = 4 * time.Second

type options struct {
	engines         []string
	depth, most     int
	fast, slow      time.Duration
	flush           int
	rounds, seconds int
	ebb, doc        string
}

func main() {
	harness.Main("sharedtags", func(ctx context.Context) error {
		o, err := parseFlags()
		if err != nil {
			return err
		}
		l := lab.Options{Modules: []string{"dm-mod"}, Deadline: time.Hour, Shares: []string{filepath.Dir(o.doc)}}
		return nullblk.InLab(ctx, l, func(ctx context.Context) error { return run(ctx, o) })
	})
}

func parseFlags() (options, error) {
	var o options
	engines := flag.String("engines", strings.Join(diskvm.Engines, ","), "`ENGINES` of ebb")
	flag.IntVar(&o.depth, "depth", 64, "requests that the guest keeps outstanding on each disk")
	flag.IntVar(&o.most, "aio-max", 64, "requests that the engine takes, both disks together")
	flag.DurationVar(&o.fast, "fast", 40*time.Millisecond, "what a request takes in the fast disk")
	flag.DurationVar(&o.slow, "slow", 4*time.Second, "what a request takes in the slow disk")
	flag.IntVar(&o.flush, "flush", 50, "with flushes: one after so many writes")
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.IntVar(&o.seconds, "seconds", 12, "length of one measurement, a multiple of both disks' times: requests come back in bursts")
	flag.StringVar(&o.ebb, "ebb", "build/ebb", "the ebb to measure")
	flag.StringVar(&o.doc, "doc", "docs/bench/sharedtags.md", "the `FILE` to write")
	flag.Parse()
	var err error
	if o.engines, err = diskvm.ParseEngines(*engines); err != nil {
		return o, err
	}
	if o.depth < 1 || o.depth > 85 || o.most < 1 || o.flush < 1 || o.rounds < 1 || o.seconds < 1 || min(o.fast, o.slow) < time.Microsecond || max(o.fast, o.slow) > maxLatency {
		return o, errors.New("-depth has to be 1 to 85, the other numbers at least 1, -fast and -slow from 1us to 4s")
	}
	if window := time.Duration(o.seconds) * time.Second; window%o.slow != 0 || window%o.fast != 0 {
		return o, errors.New("-seconds has to be a multiple of -slow and -fast")
	}
	return o, nil
}

// sample is what the disks did in one round, in requests a second.
type sample struct {
	engine, load        string
	alone, beside, slow float64 // the fast disk alone; beside the other one; the other one then
}

// The loads of the disks.
const (
	reads   = "reads"
	flushes = "reads, writes, flushes"
	hung    = "reads, the slow disk hangs"
)

func run(ctx context.Context, o options) error {
	build, err := guest.BuildDir()
	if err != nil {
		return err
	}
	kernel, err := guest.BuildDiskBench(ctx, build)
	if err != nil {
		return err
	}
	devices, err := nullblk.Make(o.depth, o.fast, o.slow)
	defer devices.Remove()
	if err != nil {
		return err
	}
	hanging, err := nullblk.MakeHanging(devices.Paths()[1], nullblk.DeviceMiB)
	if err != nil {
		return err
	}
	defer func() { _ = hanging.Remove() }()
	var samples []sample
	add := func(round int, s sample) {
		fmt.Printf("round %d  %-8s %-27s alone %.0f IOPS, beside the other disk %.0f, that %.0f\n",
			round+1, s.engine, s.load, s.alone, s.beside, s.slow)
		samples = append(samples, s)
	}
	for round := range o.rounds {
		for _, engine := range o.engines {
			for _, load := range []string{reads, flushes} {
				s, err := measure(ctx, o, kernel, engine, load, devices.Paths())
				if err != nil {
					return fmt.Errorf("%s, %s: %w", engine, load, err)
				}
				add(round, s)
				if load != reads {
					continue
				}
				// What the fast disk does alone was measured a moment ago.
				s.load, s.slow = hung, 0
				if s.beside, err = besideHung(ctx, o, kernel, engine, devices.Paths()[0], hanging); err != nil {
					return fmt.Errorf("%s, %s: %w", engine, hung, err)
				}
				add(round, s)
			}
		}
	}
	if err := os.WriteFile(o.doc, []byte(table(o, samples)), 0o644); err != nil {
		return err
	}
	fmt.Println("written:", o.doc)
	return nil
}

// measure has the first disk work alone, then beside the second.
func measure(ctx context.Context, o options, kernel, engine, load string, disks []string) (sample, error) {
	cmdline := fmt.Sprintf("depth=%d seconds=%d mode=read", o.depth, o.seconds)
	if load == flushes {
		cmdline = fmt.Sprintf("depth=%d seconds=%d mode=mix flush=%d", o.depth, o.seconds, o.flush)
	}
	bench := func(disks ...string) (report.DiskBench, error) {
		m := diskvm.Machine{Kernel: kernel, Engine: engine, Images: disks, QueueSize: 256, Cmdline: cmdline}
		return diskvm.Run(ctx, 5*time.Minute, append(m.EBB(o.ebb), "--aio-max", strconv.Itoa(o.most)))
	}
	alone, err := bench(disks[0])
	if err != nil {
		return sample{}, err
	}
	both, err := bench(disks...)
	if err != nil {
		return sample{}, err
	}
	fast, slow := both.Fastest, both.Slowest
	if fast.Disk != 0 {
		fast, slow = slow, fast
	}
	return sample{engine, load, alone.IOPS, fast.IOPS, slow.IOPS}, nil
}
