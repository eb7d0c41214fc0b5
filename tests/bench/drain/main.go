// Command drain migrates simulated VMs (migration/drain/sim) with every law that was tried, and
// writes what came of it to docs/bench/drain.md, with pictures beside it:
//
//	make bench-drain
//	go run ./tests/bench/drain -seeds 20
//
//	main.go  flags, the runs
//	sum.go   what is said about the runs of one VM with one law
//	doc.go   the tables
//	plot.go  the pictures
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/ebb-vmm/ebb/migration/drain/sim"
)

func main() {
	seeds := flag.Int("seeds", 200, "migrations of each VM with each law")
	doc := flag.String("doc", "docs/bench/drain.md", "the `FILE` to write; the pictures go beside it")
	flag.Parse()
	if err := run(max(*seeds, 1), *doc); err != nil {
		fmt.Fprintln(os.Stderr, "bench/drain:", err)
		os.Exit(1)
	}
}

func run(seeds int, doc string) error {
	table := measure(seeds)
	if err := os.WriteFile(doc, []byte(table.markdown(seeds)), 0o644); err != nil {
		return err
	}
	dir := filepath.Dir(doc)
	if err := plotOverTime(filepath.Join(dir, "drain.svg")); err != nil {
		return err
	}
	return plotLaws(filepath.Join(dir, "drain-laws.svg"))
}

// cell is one shape of VM with one law.
type cell struct{ shape, law int }

// measure runs everything, on all CPUs.
func measure(seeds int) table {
	cells := make(chan cell)
	t := table{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for c := range cells {
				s := sumOf(c, seeds)
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
	return t
}
