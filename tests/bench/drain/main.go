// Command drain migrates simulated VMs (migration/drain/sim) with every law that was tried, or VMs with real disks, in the
// lab, with the default one, and writes what came of it to docs/bench, with pictures beside it:
//
//	make bench-drain        go run ./tests/bench/drain -seeds 20
//	make bench-drain-lab    go run ./tests/bench/drain -lab -shapes "smooth 64/16 mixed" -moves 2
//
//	main.go     flags, the simulated runs
//	sum.go      what is said about the runs of one VM with one law
//	doc.go      the tables
//	plot.go     the pictures
//	shapes.go   the VMs with real disks
//	lab.go      the way into the lab, and what is kept of the runs there
//	trial.go    one migration there
//	labdoc.go   its table, labplot.go its picture
package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/ebb-vmm/ebb/migration/drain/sim"
	"github.com/ebb-vmm/ebb/tests/bench/harness"
)

func main() {
	o := labOptions{}
	seeds := flag.Int("seeds", 200, "migrations of each VM with each law")
	doc := flag.String("doc", "docs/bench/drain.md", "the `FILE` to write; the pictures go beside it")
	flag.StringVar(&o.doc, "lab-doc", "docs/bench/drain-lab.md", "the same with -lab")
	real := flag.Bool("lab", false, "migrate VMs with real disks, in the lab, instead of simulated ones")
	shapes := flag.String("shapes", "", "with -lab: `NAMES` of VMs, separated by slashes (default all)")
	moves := flag.Int("moves", 5, "with -lab: migrations of each VM")
	render := flag.Bool("render", false, "with -lab: measure nothing; write the table of -raw")
	flag.StringVar(&o.ebb, "ebb", "build/ebb", "with -lab: the ebb to measure")
	flag.StringVar(&o.raw, "raw", "build/bench/drain.json", "with -lab: the `FILE` with all that was measured")
	flag.Parse()
	harness.Main("drain", func(ctx context.Context) (err error) {
		if !*real {
			return run(ctx, max(*seeds, 1), *doc)
		}
		o.moves = max(*moves, 1)
		if o.names, err = parseNames(*shapes); err != nil {
			return err
		}
		return o.run(ctx, *render)
	})
}

func run(ctx context.Context, seeds int, doc string) error {
	dir := filepath.Dir(doc) // the pictures first: they take little time, and say whether anything can be written there
	if err := plotOverTime(filepath.Join(dir, "drain.svg")); err != nil {
		return err
	}
	if err := plotLaws(filepath.Join(dir, "drain-laws.svg")); err != nil {
		return err
	}
	table, err := measure(ctx, seeds)
	if err != nil {
		return err
	}
	return os.WriteFile(doc, []byte(table.markdown(seeds)), 0o644)
}

// cell is one shape of VM with one law.
type cell struct{ shape, law int }

// measure runs everything, on all CPUs.
func measure(ctx context.Context, seeds int) (table, error) {
	cells := make(chan cell)
	t := table{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for c := range cells {
				s := sumOf(ctx, c, seeds)
				mu.Lock()
				t[c] = s
				mu.Unlock()
			}
		})
	}
	for i := range sim.Shapes {
		for k := range sim.Laws {
			cells <- cell{i, k}
		}
	}
	close(cells)
	workers.Wait()
	return t, context.Cause(ctx)
}
