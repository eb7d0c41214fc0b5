// Command disks measures random 4 KiB reads through ebb, through QEMU and through a
// bare io_uring loop, by the number of disks:
//
//	make bench-disks
//	go run ./tests/bench/disks -quick
//
// The guest is guest/diskbench, which polls its disks from ring 3 and so runs at full
// speed under any KVM. In every round everything is measured once, all on the same
// files, so that a ratio compares neighbours in time; what is reported is the median
// over the rounds and the spread. It writes docs/bench/disks.md and disks.svg beside it,
// and what they are made of to build/bench-disks.json.
//
//	main.go         flags, the rounds
//	vmm.go          ebb and QEMU with the guest (package diskvm)
//	bare.go         the loop without a VM
//	bare_unsafe.go  its ring
//	images.go       the disks
//	sample.go       results, medians, ratios
//	goals.go        what ebb is meant to reach
//	doc.go          the table
//	plot.go         the picture
//	polled_test.go  ebb with a thread that polls instead of a VM, where there is no KVM
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/bench/diskvm"
	"github.com/ebb-vmm/ebb/tests/bench/harness"
)

type options struct {
	quick                   bool
	disks, depths           []int
	engines, places         []string
	rounds, seconds         int
	ebb, tmpfs, dir, render string
	doc, picture            string
}

func main() {
	harness.Main("disks", func(ctx context.Context) error {
		o, err := parseFlags()
		if err != nil {
			return err
		}
		return run(ctx, o)
	})
}

func parseFlags() (options, error) {
	var o options
	quick := flag.Bool("quick", false, "a first impression: -disks 1,16 -depths 1,64 -engines uring -on tmpfs -rounds 3")
	disks := flag.String("disks", "1,2,4,8,16,32", "`NUMBERS` of disks")
	depths := flag.String("depths", "1,64", "`NUMBERS` of requests in flight per disk")
	engines := flag.String("engines", "uring,native,threads", "`ENGINES` of ebb and QEMU")
	places := flag.String("on", "tmpfs,file", "`WHERE` the disks are: on tmpfs, or as files on a real file system")
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.IntVar(&o.seconds, "seconds", 2, "length of one measurement")
	flag.StringVar(&o.ebb, "ebb", "build/ebb", "the ebb to measure")
	flag.StringVar(&o.tmpfs, "tmpfs", "/dev/shm", "a `FOLDER` on tmpfs")
	flag.StringVar(&o.dir, "dir", "build", "a `FOLDER` on a real file system")
	flag.StringVar(&o.doc, "doc", "docs/bench/disks.md", "the `FILE` to write")
	flag.StringVar(&o.picture, "picture", "docs/bench/disks.svg", "the picture's `FILE`, svg or png, in the same folder")
	flag.StringVar(&o.render, "render", "", "measure nothing; write the table and the picture from this `FILE` of an earlier run")
	flag.Parse()
	o.quick = *quick
	if o.quick {
		given := map[string]bool{}
		flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{"disks": "1,16", "engines": "uring", "on": "tmpfs", "rounds": "3"} {
			if !given[name] {
				_ = flag.Set(name, value) // a flag of this program with a good value
			}
		}
	}
	o.places = strings.Split(*places, ",")
	var err1, err2, err3 error
	o.disks, err1 = diskvm.ParseNumbers("disks", *disks, 64)
	o.depths, err2 = diskvm.ParseNumbers("depths", *depths, 85) // 3 descriptors each, of a queue of 256
	o.engines, err3 = diskvm.ParseEngines(*engines)
	err := errors.Join(err1, err2, err3)
	for _, p := range o.places {
		if p != onTmpfs && p != onFile {
			err = errors.Join(err, fmt.Errorf("-on %s: write tmpfs or file", p))
		}
	}
	if o.rounds < 1 || o.seconds < 1 {
		err = errors.Join(err, errors.New("-rounds and -seconds have to be at least 1"))
	}
	return o, err
}

func run(ctx context.Context, o options) error {
	if o.render != "" {
		var r record
		if found, err := harness.Load(o.render, &r); err != nil {
			return err
		} else if !found {
			return fmt.Errorf("-render %s: there is no such file", o.render)
		}
		return r.publish(o.doc, o.picture)
	}
	build, err := guest.BuildDir()
	if err != nil {
		return err
	}
	kernel, err := guest.BuildDiskBench(ctx, build)
	if err != nil {
		return err
	}
	images := map[string]map[int][]string{} // by place and number of disks
	for _, place := range o.places {
		parent := o.tmpfs
		if place == onFile {
			parent = o.dir
		}
		dir, err := os.MkdirTemp(parent, "bench-disks-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		images[place] = map[int][]string{}
		for _, n := range o.disks {
			if images[place][n], err = makeImages(dir, n); err != nil {
				return err
			}
		}
	}
	r := record{Command: commandLine(), Host: harness.Describe(ctx)}
	raw := filepath.Join(build, "bench-disks.json")
	err = measure(ctx, o, candidates(o, kernel), images, &r, raw)
	if err != nil {
		return err
	}
	return r.publish(o.doc, o.picture)
}

// commandLine is how to measure the same again.
func commandLine() string {
	return strings.Join(append([]string{"go run ./tests/bench/disks"}, os.Args[1:]...), " ")
}

// measure goes round and round. In every other round the candidates come the other
// way round, so that nobody is always measured after the same neighbour.
func measure(ctx context.Context, o options, all []*candidate, images map[string]map[int][]string, r *record, raw string) error {
	for round := range o.rounds {
		for _, place := range o.places {
			for _, depth := range o.depths {
				for _, disks := range o.disks {
					for i := range all {
						c := all[i]
						if round%2 == 1 {
							c = all[len(all)-1-i]
						}
						setup := setup{Place: place, Disks: disks, Depth: depth}
						if err := c.sample(ctx, setup, images[place][disks], round, r); err != nil {
							return err
						}
					}
				}
			}
		}
		if err := harness.Save(raw, r); err != nil {
			return err
		}
	}
	return nil
}

// candidate is one of those compared.
type candidate struct {
	name    string // "ebb uring", "QEMU native", "bare"
	run     func(ctx context.Context, s setup, images []string) (result, error)
	refused bool // can't be measured here at all
}

func (c *candidate) sample(ctx context.Context, s setup, images []string, round int, r *record) error {
	if c.refused {
		return nil
	}
	got, err := c.run(ctx, s, images)
	switch {
	case errors.Is(err, diskvm.ErrRefused):
		c.refused = true
		fmt.Printf("%s: %v\n", c.name, err)
		r.LeftOut = append(r.LeftOut, fmt.Sprintf("%s: %v", c.name, err))
		return nil
	case err != nil:
		return fmt.Errorf("%s, %v: %w", c.name, s, err)
	}
	fmt.Printf("round %d  %-28v %-14s %8.0f IOPS  p50 %7.1f us  p99 %8.1f us  slowest/fastest %.2f\n",
		round+1, s, c.name, got.IOPS, got.P50, got.P99, got.Fairness)
	r.Samples = append(r.Samples, sample{Round: round, Candidate: c.name, Setup: s, Result: got})
	return nil
}
