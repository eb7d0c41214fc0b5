package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

func (s sample) String() string {
	text := fmt.Sprintf("%-12s %3d MB/s dirtied (%3.0f)  took %.2f s  downtime %.1f ms  sent %.0f MB  plain copy %.0f MB/s (%.0f in one process)",
		s.candidate, s.dirty, s.dirtied/1e6, s.total.Seconds(), float64(s.downtime)/1e6, s.sent/1e6, s.plain/1e6, s.within/1e6)
	if s.rate > 0 {
		text += fmt.Sprintf("  first pass %.0f MB/s  passes %d  slowed by %d %%", s.rate/1e6, s.passes, s.throttle)
	}
	return text
}

// publish writes the document.
func publish(o options, host string, samples []sample) error {
	var b strings.Builder
	fmt.Fprintf(&b, `# The memory of a migration, without KVM

A guest of %d MiB, of which %d MiB are random, is migrated from one process to another on the same host, ebb, QEMU, and QEMU with as many connections as ebb (multifd), in turn, at
the host's own speed. Where there is no KVM, ebb has no guest: a thread changes memory in its place, and what it changes is
logged as what devices write is. All else is ebb's own (package migration). QEMU emulates its guest (TCG), which runs Linux and changes
memory in the same way. So what is missing of KVM is missing on both sides: what a page costs that is written for the first time since it was
copied, and the log of those. And the memory at the destination was touched before (QEMU: -mem-prealloc), as that of the plain copy: what a new page costs is this
host's own host's doing, if it has one, and differs tenfold. *Took* is the whole migration as each itself says it, *dirtied* what the guest changed before, *first pass* how fast ebb
sent memory the first time, and *plain copy* a copy of %d MiB of random bytes from process to process, over as many TCP connections
(%d) on the same link, just before each migration. *In one process* is the same with both ends in the benchmark itself, which no migration can be. The memory that arrives in ebb is compared with what left. Medians with the lowest and the highest.

    %s

Host: %s. Downtime limit of both: %v. QEMU: max-bandwidth 10 GiB/s.

| goal | | measured | |
|---|---|---|---|
`, o.memoryMiB, filled(o.memoryMiB), copiedMiB(o.memoryMiB), migration.DefaultStreams,
		strings.Join(append([]string{"go run ./tests/bench/memory"}, os.Args[1:]...), " "), host, o.downtime)
	of := func(candidate string, dirty int, figure func(s sample) float64) stat.Stat {
		var v []float64
		for _, s := range samples {
			if s.candidate == candidate && s.dirty == dirty {
				v = append(v, figure(s))
			}
		}
		return stat.Of(v)
	}
	took := func(s sample) float64 { return s.total.Seconds() }
	for _, dirty := range o.loads() {
		for _, qemu := range candidates[1:] {
			ratio := of("ebb", dirty, took).Median / of(qemu, dirty, took).Median
			fmt.Fprintf(&b, "| %s: ebb's time / that of %s, medians | at most 1 | %.2f | %s |\n", load(dirty), qemu, ratio, verdict(ratio <= 1))
		}
	}
	if o.loads()[0] == 0 {
		ratio := of("ebb", 0, func(s sample) float64 { return s.rate / s.plain })
		within := of("ebb", 0, func(s sample) float64 { return s.rate / s.within })
		fmt.Fprintf(&b, "| %s: ebb's first pass / a plain copy | at least 0.7 | %s | %s |\n", load(0), ratio.Format("%.2f"), verdict(ratio.Median >= 0.7))
		fmt.Fprintf(&b, "| %s: ebb's first pass / a plain copy in one process | – | %s | – |\n", load(0), within.Format("%.2f"))
	}
	b.WriteString("\n| | n | took, s | downtime, ms | dirtied, MB/s | sent, MB | first pass, MB/s | plain copy, MB/s | in one process, MB/s | passes | slowed down by, % |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, dirty := range o.loads() {
		for _, c := range candidates {
			fmt.Fprintf(&b, "| %s, %s | %d | %s | %s | %s | %s |", load(dirty), c, of(c, dirty, took).N, of(c, dirty, took).Format("%.2f"),
				of(c, dirty, func(s sample) float64 { return float64(s.downtime) / 1e6 }).Format("%.1f"),
				of(c, dirty, func(s sample) float64 { return s.dirtied / 1e6 }).Format("%.0f"),
				of(c, dirty, func(s sample) float64 { return s.sent / 1e6 }).Format("%.0f"))
			plain := of(c, dirty, func(s sample) float64 { return s.plain / 1e6 }).Format("%.0f") + " | " +
				of(c, dirty, func(s sample) float64 { return s.within / 1e6 }).Format("%.0f")
			if c != "ebb" {
				fmt.Fprintf(&b, " – | %s | – | – |\n", plain)
				continue
			}
			fmt.Fprintf(&b, " %s | %s | %s | %s |\n", of(c, dirty, func(s sample) float64 { return s.rate / 1e6 }).Format("%.0f"), plain,
				of(c, dirty, func(s sample) float64 { return float64(s.passes) }).Format("%.0f"),
				of(c, dirty, func(s sample) float64 { return float64(s.throttle) }).Format("%.0f"))
		}
	}
	return os.WriteFile(o.doc, []byte(b.String()), 0o644)
}

func load(dirty int) string {
	if dirty == 0 {
		return "idle"
	}
	return fmt.Sprintf("%d MB/s dirtied", dirty)
}

func verdict(met bool) string {
	if met {
		return "pass"
	}
	return "short"
}
