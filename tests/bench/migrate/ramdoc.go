package main

import (
	"fmt"
	"strings"

	"github.com/ebb-vmm/ebb/migration"
)

// writeMemory tells of migrations of guests with much memory.
func (r *record) writeMemory(b *strings.Builder) {
	lab := ""
	if r.InLab {
		lab = `

In the lab (docs/lab.md): emulated code runs at a tenth of native speed, a page that is written for the first time since it was copied costs some 60 µs, and source and
destination share two processors. So the guest is smaller and dirties less than it would elsewhere, and only ratios mean something.`
	}
	fmt.Fprintf(b, `
# Memory

A guest with Linux, one vCPU, no disk and %d MiB, of which %d MiB are filled with random bytes, is migrated from one process to another on the same host, ebb and
QEMU in turn. It looks at its clock two hundred times a second, and else is idle or changes memory at a fixed rate, page after page. *Took* is the time of the whole migration as the VMM itself
says it, *gap* the longest time between two looks at the clock, in the %v before (*control*) and in the migration. *First pass* is how fast ebb sent memory the first
time, and *plain copy* a copy of %d MiB of random bytes from one process to memory of another that was not touched before, over as many TCP connections (%d) on the same link, just
before each migration and beside the same guest. Medians and maxima.

    %s

Host: %s.%s

ebb: `+"`--downtime %v`"+`. QEMU: downtime-limit %[9]v, max-bandwidth 10 GiB/s, multifd with as many connections.
`, r.MemoryMiB, filled(r.MemoryMiB), r.Control, copySize>>20, migration.DefaultStreams, r.Command, r.Host, lab, r.Downtime)
	writeGoals(b, r.memoryGoals())
	b.WriteString("\n| median / maximum | n | took, s | sent, MB | gap, ms | control, ms | own downtime, ms | first pass, MB/s | plain copy, MB/s | passes | slowed down by, % |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, load := range r.loads() {
		for _, c := range r.cells(load) {
			fmt.Fprintf(b, "| %v | %s |", c, r.count(c))
			for _, f := range []func(figures) float64{total, sent, gap, controlGap, downtime, rate, plain, passes, slowedBy} {
				if s := r.of(c, f); c.VMM != "ebb" && s.High == 0 { // what only ebb says
					b.WriteString(" – |")
				} else {
					fmt.Fprintf(b, " %s |", pair(s))
				}
			}
			b.WriteByte('\n')
		}
	}
	r.failures(b)
}
