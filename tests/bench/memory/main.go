// Command memory measures how long a migration's memory takes where there is no KVM, at the speed of this host: ebb's package
// migration, with a guest that is only pretended, beside QEMU, whose guest is emulated, and beside a plain copy:
//
//	go run ./tests/bench/memory
//	go run ./tests/bench/memory -rounds 1 -memory 1024
//
// What ebb and QEMU copy is the same, and with multifd over as many connections. What KVM adds to it is missing on both sides:
// faults of pages that are written for the first time since they were copied, and the log of them. With KVM:
// go run ./tests/bench/migrate -ram. It writes docs/bench/memory.md.
//
//	main.go     flags, the rounds
//	ebb.go      a migration by package migration, from process to process
//	side.go     one of the two processes
//	pretend.go  its guest
//	qemu.go     a migration by QEMU
//	doc.go      the document
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/tests/bench/harness"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// leastMemory is enough for Linux, in MiB.
const leastMemory = 512

type options struct {
	rounds, memoryMiB, dirty int
	downtime                 time.Duration
	doc, side                string
}

// bench is what all migrations have in common.
type bench struct {
	moving.Host
	options
	program string // this one
	linux   guest.Image
	copier  moving.Copier
}

// migrateLimit is for one migration, and for filling a guest's memory before.
const migrateLimit = 5 * time.Minute

func main() {
	moving.ReceiveCopy()
	harness.Main("memory", func(ctx context.Context) error {
		o, err := parseFlags()
		switch {
		case err != nil:
			return err
		case o.side != "":
			return runSide(ctx, o)
		}
		return run(ctx, o)
	})
}

func parseFlags() (options, error) {
	var o options
	flag.IntVar(&o.rounds, "rounds", 20, "how often everything is measured")
	flag.IntVar(&o.memoryMiB, "memory", 4096, "the guest's memory in `MiB`")
	flag.IntVar(&o.dirty, "dirty", 200, "how many `MB` a second the guest dirties, when it isn't idle")
	flag.DurationVar(&o.downtime, "downtime", 50*time.Millisecond, "the limit of both")
	flag.StringVar(&o.doc, "doc", "docs/bench/memory.md", "the `FILE` to write")
	flag.StringVar(&o.side, "side", "", "what the benchmark runs itself as: source, destination")
	flag.Parse()
	if o.rounds < 1 || o.memoryMiB < leastMemory || o.memoryMiB%2 != 0 || o.dirty < 0 || o.downtime < time.Millisecond {
		return o, fmt.Errorf("-rounds has to be above 0, -memory even and %d at least, -downtime 1ms at least", leastMemory)
	}
	if !slices.Contains([]string{"", source, destination}, o.side) {
		return o, errors.New("-side is source or destination")
	}
	return o, nil
}

// loads are what the guest dirties, in MB a second.
func (o options) loads() []int { return slices.Compact([]int{0, o.dirty}) }

// candidates are measured in turn, every other round the other way round.
var candidates = []string{"ebb", qemuPlain, qemuMultifd}

// sample is one migration.
type sample struct {
	candidate string
	dirty     int // MB a second the guest is to dirty
	dirtied   float64
	total     time.Duration
	downtime  time.Duration
	sent      float64 // bytes
	rate      float64 // of the first pass, in bytes a second; 0: not told
	passes    int
	throttle  int     // percent
	plain     float64 // bytes a second of a plain copy between two processes, just before
	within    float64 // the same within one process
}

func run(ctx context.Context, o options) error {
	host := harness.Describe(ctx)
	b := &bench{options: o}
	var err error
	if b.program, err = os.Executable(); err != nil {
		return err
	}
	if b.linux, err = guest.BuiltImage(); err != nil {
		return err
	}
	if b.Dir, err = os.MkdirTemp("", "bench-memory-"); err != nil { // its name is short enough for sockets
		return err
	}
	defer os.RemoveAll(b.Dir)
	b.copier = moving.Copier{Size: copiedMiB(o.memoryMiB) << 20, Touched: true}
	var samples []sample
	for round := range o.rounds {
		for _, dirty := range o.loads() {
			order := slices.Clone(candidates)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, c := range order {
				s, err := b.measure(ctx, c, dirty)
				if err != nil {
					return fmt.Errorf("%s, %d MB/s: %w", c, dirty, err)
				}
				fmt.Printf("round %d  %s\n", round+1, s)
				samples = append(samples, s)
			}
		}
	}
	return publish(o, host, samples)
}

func (b *bench) measure(ctx context.Context, candidate string, dirty int) (s sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, migrateLimit)
	defer cancel()
	migrate := b.ebb
	switch candidate {
	case qemuPlain:
		migrate = func(ctx context.Context, dirty int) (sample, error) { return b.qemu(ctx, dirty, 1) }
	case qemuMultifd:
		migrate = func(ctx context.Context, dirty int) (sample, error) {
			return b.qemu(ctx, dirty, migration.DefaultStreams)
		}
	}
	s, err = migrate(ctx, dirty)
	s.candidate, s.dirty = candidate, dirty
	return s, err
}

// copiedMiB is how much a plain copy copies: more than a cache holds, where the guest has as much.
func copiedMiB(memoryMiB int) int { return min(filled(memoryMiB), 2048) / 4 * 4 }

// filled is how many MiB of a guest's memory are filled with random bytes. The rest is zeroes, or the kernel's.
func filled(memoryMiB int) int { return memoryMiB - max(192, memoryMiB/10) }
