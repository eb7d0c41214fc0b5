package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// writeDisks tells of migrations of guests that write to a disk.
func (r *record) writeDisks(b *strings.Builder) {
	fmt.Fprintf(b, `
# Disks

A guest of one vCPU that keeps 64 or 120 writes of 4 KiB outstanding is migrated from one process to another
on the same host, with the same disk, opened with O_DIRECT by both. Its console tells, every %v and at both sides, the
longest time between two looks (*gap*) at its disk, or, if it is Linux, at its clock, and the longest request. Given are the largest from the beginning of a migration
until %v after its end, and, beside it, those of the %v before (*control*). Each guest was migrated several times in a row, ebb and
QEMU in turn. Medians and maxima over all migrations, in ms.

    %s

Host: %s.

%s

Without more said, the guest is guest/diskbench, which polls its disk from ring 3. *Linux* is Debian's 6.1 with the workload load of guest/init: 64 writes at
a time by Linux AIO, and a process that looks at CLOCK_MONOTONIC and the time-stamp counter every 5 ms, before all others. Its gap is by the clock that saw more. In the lab it is longer
than the downtime under both: the vCPU shares two processors with what source, destination and the command do in the end, and probably the emulator has to translate the guest's code anew, which is in other pages now.

The *gap at the switch* is that of the guest's last line at the source and those at the destination; gaps elsewhere are the host's noise,
as those of the control window, and what a migration takes of its processors. *Clock lost* is by how much the guest's clock (diskbench: the time-stamp counter)
fell behind the host's: QEMU loads it as it was saved, which is after the disk was waited for, so that a guest in QEMU does not see
all of its blackout. *Blackout* is the gap at the switch with what the clock lost. *Own downtime* is what the VMM itself says (ebb's
report, QEMU's query-migrate).

ebb: `+"`--downtime %v --stall %v`"+`. QEMU: downtime-limit %v, which counts memory only, max-bandwidth 10 GiB/s, aio=io_uring, one I/O thread.
`, period, settle, r.Control, r.Command, r.Host, r.disksText(), r.Downtime, r.Stall, qemuDowntime)
	writeGoals(b, r.diskGoals())
	for _, load := range r.loads() {
		fmt.Fprintf(b, "\n## %s\n\n", title(load))
		cells := r.cells(load)
		r.guestTable(b, cells)
		r.ebbTable(b, cells)
	}
	r.failures(b)
}

func title(load cell) string {
	text := fmt.Sprintf("the %s disk, %d writes outstanding", load.Disk, load.Depth)
	if load.Guest == linux {
		return "Linux, " + text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func (r *record) disksText() string {
	if r.InLab {
		return fmt.Sprintf(`In the lab (docs/lab.md): emulated code runs at a tenth of native speed, and only ratios mean something. The slow disk is a
drive that QEMU throttles to %d requests a second, the fast one a null_blk device that takes any number at once and %v for each, for
the flush before the images change hands as well.`, slowIOPS, fastLatency)
	}
	return fmt.Sprintf("Both disks are a file on a real disk; the slow one is throttled by a cgroup to %d writes a second.", slowIOPS)
}

// cells are those of one table, in the order of candidates.
func (r *record) cells(load cell) (list []cell) {
	for _, c := range candidates {
		c = load.by(c)
		if slices.ContainsFunc(r.Samples, func(s sample) bool { return s.Cell == c }) {
			list = append(list, c)
		}
	}
	return list
}

// pair is "median / maximum".
func pair(s stat.Stat) string {
	if s.N == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f / %.1f", s.Median, s.High)
}

func (r *record) guestTable(b *strings.Builder, cells []cell) {
	b.WriteString("| median / maximum, ms | n | gap | control | gap at the switch | clock lost | blackout | longest request | control | own downtime |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range cells {
		fmt.Fprintf(b, "| %s | %s |", c.candidate(), r.count(c))
		for _, f := range []func(figures) float64{gap, controlGap, switchGap, lost, blackout, latency, controlLatency, downtime} {
			fmt.Fprintf(b, " %s |", pair(r.of(c, f)))
		}
		b.WriteByte('\n')
	}
}

func (r *record) ebbTable(b *strings.Builder, cells []cell) {
	b.WriteString("\nWhat ebb says of it, medians:\n\n" +
		"| | stop | drain | last RAM | state | commit | I/O held, ms (max) | EBB, s | rate in EBB / before | in flight at stop (max) | holds missed | took, s |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range cells {
		if c.VMM != "ebb" {
			continue
		}
		median := func(figure func(own) time.Duration) string {
			return fmt.Sprintf("%.1f", r.of(c, func(f figures) float64 { return ms(figure(f.Own)) }).Median)
		}
		seconds := func(figure func(own) time.Duration) string {
			return fmt.Sprintf("%.1f", r.of(c, func(f figures) float64 { return figure(f.Own).Seconds() }).Median)
		}
		held := r.of(c, func(f figures) float64 { return ms(f.Own.Held) })
		inFlight := r.of(c, func(f figures) float64 { return float64(f.Own.InFlight) })
		missed := 0
		for _, s := range r.Samples {
			if s.Cell == c {
				missed += len(s.Figures.Own.Retries)
			}
		}
		rate := "–"
		if e := r.ebbRates(c); e.N > 0 {
			rate = fmt.Sprintf("%.2f", e.Median)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %.0f (%.0f) | %s | %s | %.0f (%.0f) | %d | %s |\n", c.candidate(),
			median(func(o own) time.Duration { return o.Split.Stop }), median(func(o own) time.Duration { return o.Split.Drain }),
			median(func(o own) time.Duration { return o.Split.LastRAM }), median(func(o own) time.Duration { return o.Split.State }),
			median(func(o own) time.Duration { return o.Split.Commit }), held.Median, held.High,
			seconds(func(o own) time.Duration { return o.Ebb }), rate, inFlight.Median, inFlight.High, missed,
			seconds(func(o own) time.Duration { return o.Total }))
	}
}
