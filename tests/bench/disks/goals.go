package main

import (
	"fmt"

	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// goal is something ebb is meant to reach.
type goal struct {
	name  string
	least float64
	got   stat.Stat
}

// goals are about io_uring and tmpfs, where the disk is so fast that the VMM is
// what is measured.
func (r *record) goals() (all []goal) {
	at := func(disks, depth int) setup { return setup{onTmpfs, disks, depth} }
	const ebb, qemu = "ebb uring", "QEMU uring"
	all = []goal{
		{"one disk, depth 64: ebb / QEMU", 1.8, r.ratio(ebb, at(1, 64), qemu, at(1, 64))},
		{"16 disks, depth 64: ebb / QEMU", 2.2, r.ratio(ebb, at(16, 64), qemu, at(16, 64))},
		{"depth 64: ebb with 16 disks / ebb with one", 0.95, r.ratio(ebb, at(16, 64), ebb, at(1, 64))},
		{"16 disks, depth 64: ebb's slowest disk / fastest", 0.9, r.stat(ebb, at(16, 64), fairness)},
		{"32 disks, depth 64: ebb's slowest disk / fastest", 0.9, r.stat(ebb, at(32, 64), fairness)},
		{"one disk, depth 64: ebb / bare loop beside a busy core", 0.75, r.ratio(ebb, at(1, 64), bareName, at(1, 64))},
		{"16 disks, depth 64: ebb / bare loop beside a busy core", 0.75, r.ratio(ebb, at(16, 64), bareName, at(16, 64))},
		{"one disk, depth 1: ebb / QEMU", 1.2, r.ratio(ebb, at(1, 1), qemu, at(1, 1))},
	}
	return all
}

// verdict is pass or short, by the median.
func (g goal) verdict() string {
	switch {
	case g.got.N == 0:
		return "not measured"
	case g.got.Median >= g.least:
		return "pass"
	default:
		return "short"
	}
}

func (g goal) String() string {
	if g.got.N == 0 {
		return fmt.Sprintf("%-56s at least %.2f: not measured", g.name, g.least)
	}
	return fmt.Sprintf("%-56s at least %.2f: %.2f (%.2f to %.2f) %s", g.name, g.least, g.got.Median, g.got.Low, g.got.High, g.verdict())
}
