// Command migrate measures live migrations of a guest that writes to a slow disk: ebb with
// each policy beside QEMU, in turn:
//
//	make bench-migrate
//	go run ./tests/bench/migrate -quick
//
// The guest is guest/diskbench, which polls its disk from ring 3. It keeps a number of writes
// outstanding and says several times a second what its longest request was, and the longest time
// between two looks at the disk: in that a blackout is, whatever the VMM says of it. That counter is
// in the guest's memory, so that it moves with it. Both processes are on this host; where there is no
// /dev/kvm, they are in the lab (tests/lab). It writes docs/bench/migrate.md, and what that is made of to
// build/bench/migrate.json.
//
//	main.go     flags, the rounds
//	lab.go      the way into the lab
//	cell.go     what is varied; a guest that is migrated several times
//	disk.go     the disks
//	vmm.go      ebb.go and qemu.go, with QEMU's monitor in qmp.go; the processes are package moving's
//	figures.go  one migration's figures
//	goals.go    what ebb is meant to reach
//	doc.go      the table
//	demo.go     once, between two hosts: make demo-migrate
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/bench/diskvm"
	"github.com/ebb-vmm/ebb/tests/bench/host"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

type options struct {
	migrations, chain        int
	depths                   []int
	disks, candidates        []string
	downtime, stall, control time.Duration
	demo, render             bool
	ebb, dir, doc, raw, host string
}

func main() {
	o, err := parseFlags()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		err = o.do(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/migrate:", err)
		os.Exit(1)
	}
}

func parseFlags() (options, error) {
	var o options
	// In the lab all but the disk is ten times slower than elsewhere.
	downtime, stall := 50*time.Millisecond, 150*time.Millisecond
	if lab.InLab() || !lab.HasKVM() {
		downtime, stall = 500*time.Millisecond, 300*time.Millisecond
	}
	quick := flag.Bool("quick", false, "a first impression: -migrations 3")
	flag.IntVar(&o.migrations, "migrations", 20, "how often each guest is migrated")
	flag.IntVar(&o.chain, "chain", 5, "how often between two boots")
	depths := flag.String("depths", "64,120", "`NUMBERS` of writes outstanding")
	disks := flag.String("disks", slow+","+fast, "`DISKS`: slow, fast")
	names := flag.String("candidates", "", "`CANDIDATES` to measure: QEMU, ebb adaptive, ebb serial, ebb off (default all)")
	flag.DurationVar(&o.downtime, "downtime", downtime, "ebb's --downtime; the default is longer in the lab")
	flag.DurationVar(&o.stall, "stall", stall, "ebb's --stall; the default is longer in the lab")
	flag.DurationVar(&o.control, "control", 3*time.Second, "how long the guest is watched before each migration")
	flag.BoolVar(&o.demo, "demo", false, "migrate once, between two network namespaces")
	flag.BoolVar(&o.render, "render", false, "measure nothing; write the table of -raw")
	flag.StringVar(&o.ebb, "ebb", "build/ebb", "the ebb to measure")
	flag.StringVar(&o.dir, "dir", "build", "a `FOLDER` on a real disk, for the image; not used in the lab")
	flag.StringVar(&o.doc, "doc", "docs/bench/migrate.md", "the `FILE` to write")
	flag.StringVar(&o.raw, "raw", "build/bench/migrate.json", "the `FILE` with all that was measured")
	flag.StringVar(&o.host, "host", "", "what to say of the host; the default is to look")
	flag.Parse()
	if given := false; *quick {
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "migrations" })
		if !given {
			o.migrations = 3
		}
	}
	o.disks = strings.Split(*disks, ",")
	for _, c := range candidates {
		o.candidates = append(o.candidates, c.candidate())
	}
	if *names != "" {
		o.candidates = strings.Split(*names, ",")
	}
	var err error
	o.depths, err = diskvm.ParseNumbers("depths", *depths, queueSize/3)
	for _, d := range o.disks {
		if d != fast && d != slow {
			err = errors.Join(err, fmt.Errorf("-disks %s: write slow, fast or both", d))
		}
	}
	if min(o.migrations, o.chain) < 1 || min(o.downtime, o.stall, o.control) < time.Millisecond {
		err = errors.Join(err, errors.New("-migrations, -chain and all times have to be above 0"))
	}
	return o, err
}

// do measures in the lab or here, and writes the table.
func (o options) do(ctx context.Context) error {
	if !o.render {
		if o.host == "" {
			o.host = host.Describe(ctx)
		}
		inside := lab.InLab() || lab.HasKVM()
		if !inside {
			if err := o.runInLab(ctx); err != nil {
				return err
			}
		} else if err := o.run(ctx); err != nil {
			return err
		}
		if lab.InLab() || o.demo {
			return nil
		}
	}
	data, err := os.ReadFile(o.raw)
	if err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("%s: %w", o.raw, err)
	}
	return r.publish(o.doc)
}

// run measures here.
func (o options) run(ctx context.Context) error {
	build, err := guest.BuildDir()
	if err != nil {
		return err
	}
	kernel, err := guest.BuildDiskBench(ctx, build)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-migrate-") // its name is short enough for sockets
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	images, err := os.MkdirTemp(o.dir, "bench-migrate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(images)
	if images, err = filepath.Abs(images); err != nil {
		return err
	}
	disks, remove, err := makeDisks(images)
	if err != nil {
		return err
	}
	defer remove()
	b := &bench{Host: moving.Host{Dir: dir}, o: o, kernel: kernel}
	if o.demo {
		return b.demonstrate(ctx, disks)
	}
	r := &record{Command: commandLine(), Host: o.host, InLab: lab.InLab(), Downtime: o.downtime, Stall: o.stall, Control: o.control}
	if r.InLab {
		if err := b.warmUp(ctx, disks); err != nil {
			return err
		}
	}
	for round := 0; round*o.chain < o.migrations; round++ {
		if err := b.round(ctx, r, round, disks); err != nil {
			return err
		}
	}
	return nil
}

// warmUp migrates once with each VMM, for nothing: the lab's emulator takes several times as long for code that it
// sees for the first time.
func (b *bench) warmUp(ctx context.Context, disks map[string]disk) error {
	for _, c := range candidates[:2] {
		c.Disk, c.Depth = slow, b.o.depths[0]
		b.cell, b.disk = c, disks[slow]
		if _, err := b.visit(ctx, 1, [2]moving.Place{moving.Here, moving.Here}); err != nil {
			return err
		}
	}
	return nil
}

// round visits every cell once. In every other round the candidates come the other way round, so that nobody is
// always measured after the same neighbour.
func (b *bench) round(ctx context.Context, r *record, round int, disks map[string]disk) error {
	list := slices.Clone(candidates)
	if round%2 == 1 {
		slices.Reverse(list)
	}
	for _, name := range b.o.disks {
		for _, depth := range b.o.depths {
			for _, c := range list {
				if !slices.Contains(b.o.candidates, c.candidate()) {
					continue
				}
				c.Disk, c.Depth = name, depth
				b.cell, b.disk = c, disks[name]
				samples, err := b.visit(ctx, min(b.o.chain, b.o.migrations-round*b.o.chain), [2]moving.Place{moving.Here, moving.Here})
				for _, s := range samples {
					s.Round = round
					fmt.Printf("round %d  %v\n", round+1, s)
					r.Samples = append(r.Samples, s)
				}
				if err != nil {
					return err
				}
				if err := r.save(b.o.raw); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// commandLine is how to measure the same again.
func commandLine() string {
	args := os.Args[1:]
	if i := slices.Index(args, "-host"); i >= 0 { // from runInLab
		args = args[:i]
	}
	return strings.Join(append([]string{"go run ./tests/bench/migrate"}, args...), " ")
}
