package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

const ms1 = time.Millisecond

var epoch = time.Unix(1_800_000_000, 0)

// A guest that stands for 500 ms, of which its clock sees 300, in the midst of a line.
func twoSides() (lines []moving.Line) {
	say := func(n, side int, at, host time.Duration, iops float64, longest, gap time.Duration) {
		lines = append(lines, moving.Line{
			DiskBenchSecond: report.DiskBenchSecond{T: n, At: at, IOPS: iops, Max: longest, Gap: gap},
			Host:            epoch.Add(host), Side: side,
		})
	}
	for n := 1; n <= 10; n++ {
		say(n, 0, time.Duration(n)*200*ms1, time.Duration(n)*200*ms1+ms1, 200, 320*ms1, 2*ms1)
	}
	say(11, 1, 2600*ms1, 2803*ms1, 100, 600*ms1, 300*ms1)
	for n := 12; n <= 20; n++ {
		say(n, 1, time.Duration(n-12)*200*ms1+2800*ms1, time.Duration(n-12)*200*ms1+3001*ms1, 200, 310*ms1, 3*ms1)
	}
	return lines
}

func TestFigures(t *testing.T) {
	f, err := measure(twoSides(), epoch.Add(900*ms1), epoch.Add(1900*ms1), epoch.Add(2810*ms1))
	if err != nil {
		t.Fatal(err)
	}
	want := figures{Gap: 300 * ms1, ControlGap: 2 * ms1, SwitchGap: 300 * ms1, GapAt: 903 * ms1, Latency: 600 * ms1, ControlLatency: 320 * ms1, Before: 200, Lost: 200 * ms1}
	if f.Before = float64(int(f.Before + .5)); fmt.Sprint(f) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
	if f.blackout() != 500*ms1 {
		t.Errorf("blackout %v", f.blackout())
	}
}

// A guest that stands for longer than it is watched has its gap all the same.
func TestFirstLineIsLate(t *testing.T) {
	lines := twoSides()[:10]
	late := lines[9]
	late.Side, late.Host, late.Gap = 1, epoch.Add(9*time.Second), 7*time.Second
	f, err := measure(append(lines, late), epoch.Add(900*ms1), epoch.Add(1900*ms1), epoch.Add(2810*ms1))
	if err != nil || f.SwitchGap != 7*time.Second {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestEbbsOwn(t *testing.T) {
	disks := func(completed uint64) []migration.DiskSample { return []migration.DiskSample{{Completed: completed}} }
	o := ebbsOwn(&migration.Report{
		Phases: []migration.PhaseTime{{Phase: "precopy"}, {Phase: "ebb", At: time.Second}, {Phase: "hold", At: 2 * time.Second}, {Phase: "ebb", At: 3 * time.Second}, {Phase: "hold", At: 5 * time.Second}},
		Samples: []migration.Sample{{At: 0, Phase: "precopy", Disks: disks(1)}, {At: time.Second, Phase: "ebb", Disks: disks(100)}, {At: 2 * time.Second, Phase: "ebb", Disks: disks(250)},
			{At: 2500 * ms1, Phase: "hold", Disks: disks(260)}, {At: 3 * time.Second, Phase: "ebb", Disks: disks(260)}, {At: 4 * time.Second, Phase: "ebb", Disks: disks(410)}},
	})
	if o.Ebb != 3*time.Second || !o.EbbRated || o.EbbRate != 150 {
		t.Errorf("%+v", o)
	}
}

func TestTable(t *testing.T) {
	r := record{Command: "this one", Host: "a host", InLab: true, Downtime: 500 * ms1, Stall: 300 * ms1, Control: 4 * time.Second}
	load := cell{Guest: ring3, Depth: 64}
	add := func(disk, vmm, policy string, gap, lost time.Duration, failed string) {
		load.Disk = disk
		r.Samples = append(r.Samples, sample{
			Cell: load.by(cell{VMM: vmm, Policy: policy}), Failed: failed,
			Figures: figures{Gap: gap + ms1, ControlGap: ms1, SwitchGap: gap, Lost: lost, Latency: 400 * ms1, ControlLatency: 320 * ms1, Before: 200, Own: own{EbbRate: 190, EbbRated: true, Held: 120 * ms1}},
		})
	}
	for _, gap := range []time.Duration{40, 50, 60} {
		add(slow, "ebb", "adaptive", gap*ms1, 0, "")
		add(slow, "QEMU", "", gap*10*ms1, 100*ms1, "")
	}
	add(slow, "ebb", "adaptive", 0, 0, "no route\nmore")
	add(fast, "ebb", "adaptive", 49*ms1, 0, "")
	load.Guest = linux
	add(slow, "ebb", "adaptive", 30*ms1, 0, "")
	add(slow, "QEMU", "", 300*ms1, 0, "")
	text := markdown(&r, nil)
	for _, line := range []string{
		"    this one\n",
		"| slow disk, 64 writes: ebb's gap / QEMU's, medians | at most 0.125 | 0.102 | pass |\n",
		"| slow disk, 64 writes: the same at the switch, with what the guests' clocks lost, medians | at most 0.125 | 0.0833 | pass |\n",
		"| slow disk, 64 writes: ebb's gap beyond that on the fast disk, medians | at most 2.0 ms | 1.0 ms | pass |\n",
		"| slow disk, 64 writes: requests a second in EBB / before, median | at least 0.9 | 0.95 | pass |\n",
		"| slow disk, 64 writes: ebb's longest request beyond that of the control window, maximum | at most 300.0 ms | 80.0 ms | pass |\n",
		"| Linux, slow disk, 64 writes: ebb's gap / QEMU's, maxima | at most 0.125 | 0.103 | pass |\n",
		"## Linux, the slow disk, 64 writes outstanding\n",
		"| ebb adaptive | 3, 1 failed | 51.0 / 61.0 | 1.0 / 1.0 | 50.0 / 60.0 | 0.0 / 0.0 | 50.0 / 60.0 | 400.0 / 400.0 |",
		"| QEMU | 3 | 501.0 / 601.0 |",
		"- slow disk, 64 writes, ebb adaptive: no route\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the table lacks %q:\n%s", line, text)
		}
	}
	if strings.Contains(text, "more\n") {
		t.Error("all of a failure's log is in the table")
	}
}

func TestMemoryTable(t *testing.T) {
	r := record{Command: "this one", InLab: true, Downtime: 500 * ms1, MemoryMiB: 1024}
	add := func(dirty int, candidate cell, total time.Duration, rate float64) {
		load := cell{Guest: linux, Dirty: dirty}
		r.Samples = append(r.Samples, sample{Cell: load.by(candidate), Figures: figures{Gap: 30 * ms1, ControlGap: 2 * ms1, Plain: 200e6, Own: own{Downtime: 20 * ms1, Total: total, Rate: rate, Sent: 896 << 20}}})
	}
	add(0, adaptive, 4*time.Second, 160e6)
	add(0, qemuCell, 5*time.Second, 0)
	add(20, adaptive, 12*time.Second, 150e6)
	add(20, qemuCell, 10*time.Second, 0)
	text := markdown(nil, &r)
	for _, line := range []string{
		"no disk and 1024 MiB, of which 832 MiB are filled",
		"| idle: ebb's time / QEMU's, medians | at most 1 | 0.8 | pass |\n",
		"| idle: ebb's first pass / a plain copy, median | at least 0.7 | 0.8 | pass |\n",
		"| 20 MB/s dirtied: ebb's time / QEMU's, medians | at most 1 | 1.2 | short |\n",
		"| idle, QEMU | 1 | 5.0 / 5.0 | 939.5 / 939.5 | 30.0 / 30.0 | 2.0 / 2.0 | 20.0 / 20.0 | – | 200.0 / 200.0 | – | – |\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the table lacks %q:\n%s", line, text)
		}
	}
}

// With Linux there is one load of disks, and no more of ebb than one policy.
func TestCells(t *testing.T) {
	o := options{guests: []string{ring3, linux}, disks: []string{slow, fast}, depths: []int{64, 120}, dirty: 20}
	for _, c := range candidates {
		o.candidates = append(o.candidates, c.candidate())
	}
	names := func() (list []string) {
		for _, load := range o.loads() {
			for _, c := range o.compared(load) {
				list = append(list, c.String())
			}
		}
		return list
	}
	if all := names(); len(all) != 4*4+2 || all[0] != "slow disk, 64 writes, ebb adaptive" || all[17] != "Linux, slow disk, 64 writes, QEMU" {
		t.Errorf("%q", all)
	}
	o.ram = true
	want := []string{"idle, ebb adaptive", "idle, QEMU", "20 MB/s dirtied, ebb adaptive", "20 MB/s dirtied, QEMU"}
	if got := names(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
