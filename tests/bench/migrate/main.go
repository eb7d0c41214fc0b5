// Command migrate measures live migrations of a guest that writes to a slow disk: ebb with
// each policy beside QEMU, in turn:
//
//	make bench-migrate
//	go run ./tests/bench/migrate -quick
//	go run ./tests/bench/migrate -ram
//
// The guest is guest/diskbench, which polls its disk from ring 3, or Linux. It keeps a number of writes
// outstanding and says several times a second what its longest request was, and the longest time
// between two looks at the disk, or the clock: in that a blackout is, whatever the VMM says of it. That counter is
// in the guest's memory, so that it moves with it. With -ram it has no disk but much memory, and what is compared is how long
// a migration takes. Both processes are on this host; where there is no /dev/kvm, they are in the lab
// (tests/lab). It writes docs/bench/migrate.md, and what that is made of to build/bench/: migrate.json, and
// migrate-ram.json with -ram.
//
//	main.go     flags, the rounds
//	lab.go      the way into the lab
//	cell.go     what is varied; a guest that is migrated several times
//	guest.go    the guests
//	disk.go     the disks
//	vmm.go      ebb.go and qemu.go; the processes are package moving's, with QEMU's monitor and a plain copy
//	figures.go  one migration's figures
//	goals.go    what ebb is meant to reach
//	doc.go      the document; diskdoc.go and ramdoc.go: its tables
//	demo.go     once, between two hosts: make demo-migrate
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
	"github.com/ebb-vmm/ebb/tests/bench/moving"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// leastMemory is enough for -ram, in MiB.
const leastMemory = 256

type options struct {
	migrations, chain        int
	depths                   []int
	guests                   []string
	disks, candidates        []string
	memoryMiB, dirty         int
	downtime, stall, control time.Duration
	ram, demo, render        bool
	ebb, dir, doc, raw, host string
}

func main() {
	moving.ReceiveCopy()
	harness.Main("migrate", func(ctx context.Context) error {
		o, err := parseFlags()
		if err != nil {
			return err
		}
		return o.do(ctx)
	})
}

func parseFlags() (options, error) {
	var o options
	// In the lab all but the disk is ten times slower than elsewhere.
	downtime, stall, memoryMiB, dirty := 50*time.Millisecond, 150*time.Millisecond, 4096, 200
	if lab.InLab() || !lab.HasKVM() {
		downtime, stall, memoryMiB, dirty = 500*time.Millisecond, 300*time.Millisecond, 1024, 20
	}
	guests := ring3 + "," + linux
	if !lab.InLab() && lab.HasKVM() && !lab.KVMBootsLinux() {
		guests = ring3 // which needs no lab there
	}
	quick := flag.Bool("quick", false, "a first impression: -migrations 3")
	flag.IntVar(&o.migrations, "migrations", 20, "how often each guest is migrated")
	flag.IntVar(&o.chain, "chain", 5, "how often between two boots")
	flag.StringVar(&guests, "guests", guests, "`GUESTS`: ring3, linux")
	depths := flag.String("depths", "64,120", "`NUMBERS` of writes outstanding")
	disks := flag.String("disks", slow+","+fast, "`DISKS`: slow, fast")
	names := flag.String("candidates", "", "`CANDIDATES` to measure: QEMU, ebb adaptive, ebb serial, ebb off (default all)")
	flag.DurationVar(&o.downtime, "downtime", downtime, "ebb's --downtime; the default is longer in the lab")
	flag.DurationVar(&o.stall, "stall", stall, "ebb's --stall; the default is longer in the lab")
	flag.DurationVar(&o.control, "control", 3*time.Second, "how long the guest is watched before each migration")
	flag.BoolVar(&o.ram, "ram", false, "measure how long memory takes, with a Linux guest, instead of disks")
	flag.IntVar(&o.memoryMiB, "memory", memoryMiB, "with -ram: the guest's, in `MiB`; the default is less in the lab")
	flag.IntVar(&o.dirty, "dirty", dirty, "with -ram: how many `MB` a second the guest dirties, when it isn't idle; the default is less in the lab")
	flag.BoolVar(&o.demo, "demo", false, "migrate once, between two network namespaces")
	flag.BoolVar(&o.render, "render", false, "measure nothing; write the tables of -raw")
	flag.StringVar(&o.ebb, "ebb", "build/ebb", "the ebb to measure")
	flag.StringVar(&o.dir, "dir", "build", "a `FOLDER` on a real disk, for the image; not used in the lab")
	flag.StringVar(&o.doc, "doc", "docs/bench/migrate.md", "the `FILE` to write")
	flag.StringVar(&o.raw, "raw", "build/bench", "the `FOLDER` for all that was measured")
	flag.StringVar(&o.host, "host", "", "what to say of the host; the default is to look")
	flag.Parse()
	if given := false; *quick {
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "migrations" })
		if !given {
			o.migrations = 3
		}
	}
	o.guests, o.disks = strings.Split(guests, ","), strings.Split(*disks, ",")
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
	for _, g := range o.guests {
		if g != ring3 && g != linux {
			err = errors.Join(err, fmt.Errorf("-guests %s: write ring3, linux or both", g))
		}
	}
	if o.memoryMiB < leastMemory || o.memoryMiB%2 != 0 || o.dirty < 1 {
		err = errors.Join(err, fmt.Errorf("-memory has to be even and %d at least, -dirty above 0", leastMemory))
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
			o.host = harness.Describe(ctx)
		}
		able := lab.HasKVM
		if o.boots(linux) {
			able = lab.KVMBootsLinux
		}
		if !lab.InLab() && !able() {
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
	disks, err := load(o.file(false))
	if err != nil {
		return err
	}
	memory, err := load(o.file(true))
	if err != nil {
		return err
	}
	return publish(o.doc, disks, memory)
}

// file is where a record of disks, or of memory, is kept.
func (o options) file(ram bool) string {
	if ram {
		return filepath.Join(o.raw, "migrate-ram.json")
	}
	return filepath.Join(o.raw, "migrate.json")
}

// run measures here.
func (o options) run(ctx context.Context) error {
	build, err := guest.BuildDir()
	if err != nil {
		return err
	}
	b := &bench{o: o, memoryMiB: o.memoryMiB, copier: moving.Copier{Size: copySize}}
	if o.demo || o.boots(ring3) {
		if b.diskbench, err = guest.BuildDiskBench(ctx, build); err != nil {
			return err
		}
	}
	if o.boots(linux) {
		if b.linux, err = guest.BuiltImage(); err != nil {
			return err
		}
	}
	b.Dir, err = os.MkdirTemp("", "bench-migrate-") // its name is short enough for sockets
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.Dir)
	var disks map[string]disk
	if !o.ram {
		images, err := os.MkdirTemp(o.dir, "bench-migrate-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(images)
		if images, err = filepath.Abs(images); err != nil {
			return err
		}
		var remove func()
		if disks, remove, err = makeDisks(images); err != nil {
			return err
		}
		defer remove()
	}
	if o.demo {
		return b.demonstrate(ctx, disks)
	}
	r := &record{Command: commandLine(), Host: o.host, InLab: lab.InLab(), Downtime: o.downtime, Stall: o.stall, Control: o.control, MemoryMiB: o.memoryMiB}
	if r.InLab {
		if err := moving.TouchFree(); err != nil {
			return err
		}
		if err := b.warmUp(ctx, o.loads(), disks); err != nil {
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

// warmUp migrates each guest of loads once with each VMM, for nothing: the lab's emulator takes several times as long for code that it
// sees for the first time.
func (b *bench) warmUp(ctx context.Context, loads []cell, disks map[string]disk) error {
	b.memoryMiB = leastMemory
	defer func() { b.memoryMiB = b.o.memoryMiB }()
	done := map[string]bool{}
	for _, load := range loads {
		if done[load.Guest] {
			continue
		}
		done[load.Guest] = true
		for _, c := range candidates[:2] {
			b.cell, b.disk = load.by(c), disks[load.Disk]
			if _, err := b.visit(ctx, 1, [2]moving.Place{moving.Here, moving.Here}); err != nil {
				return err
			}
		}
	}
	return nil
}

// round visits every cell once. In every other round the candidates come the other way round, so that nobody is
// always measured after the same neighbour.
func (b *bench) round(ctx context.Context, r *record, round int, disks map[string]disk) error {
	for _, load := range b.o.loads() {
		cells := b.o.compared(load)
		if round%2 == 1 {
			slices.Reverse(cells)
		}
		for _, c := range cells {
			b.cell, b.disk = c, disks[c.Disk]
			samples, err := b.visit(ctx, min(b.o.chain, b.o.migrations-round*b.o.chain), [2]moving.Place{moving.Here, moving.Here})
			for _, s := range samples {
				s.Round = round
				fmt.Printf("round %d  %v\n", round+1, s)
				r.Samples = append(r.Samples, s)
			}
			if err != nil {
				return err
			}
			if err := harness.Save(b.o.file(b.o.ram), r); err != nil {
				return err
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
