package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// publish prints the goals and writes the document and the picture.
func (r *record) publish(doc, picture string) error {
	fmt.Println()
	for _, g := range r.goals() {
		fmt.Println(g)
	}
	if err := r.plot(picture); err != nil {
		return fmt.Errorf("%s: %w", picture, err)
	}
	if err := os.WriteFile(doc, []byte(r.markdown(filepath.Base(picture))), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nwritten: %s, %s\n", doc, picture)
	return nil
}

func (r *record) markdown(picture string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Many disks, beside QEMU and beside no VM

Random reads of 4 KiB with O_DIRECT from files of 512 MiB together, on tmpfs and on a real file system, by a guest that
polls all its disks from one vCPU (guest/diskbench). QEMU has one I/O thread for all disks; ebb always has one engine
thread. *Bare* is a loop over one io_uring without a VM, beside a core that is kept busy as a polling vCPU keeps it. It
opens its files as ebb does (docs/engine.md).
Everything is measured once a round; given are medians over %d rounds with the lowest and the highest, and ratios are
taken within a round. This file is written by

    %s

Host: %s.

![requests per second by the number of disks](%s)

## Goals

| | at least | median (spread) | |
|---|---|---|---|
`, r.rounds(), r.Command, r.Host, picture)
	for _, g := range r.goals() {
		fmt.Fprintf(&b, "| %s | %.2f | %s | %s |\n", g.name, g.least, g.got.Format("%.2f"), g.verdict())
	}
	for _, place := range []string{onTmpfs, onFile} {
		if setups := r.setups(place); len(setups) > 0 {
			r.tables(&b, place, setups)
		}
	}
	if len(r.LeftOut) > 0 {
		b.WriteString("\n## Left out\n\n")
		for _, s := range r.LeftOut {
			fmt.Fprintf(&b, "- %s\n", s)
		}
	}
	return b.String()
}

// tables has one table for each figure.
func (r *record) tables(b *strings.Builder, place string, setups []setup) {
	title := map[string]string{onTmpfs: "On tmpfs", onFile: "Files on a real file system"}[place]
	fmt.Fprintf(b, "\n## %s\n", title)
	r.table(b, "Thousands of requests per second", setups, func(name string, s setup) string {
		return r.stat(name, s, iops).Scaled(1e-3).Format("%.0f")
	})
	r.table(b, "Latency in microseconds, median / 99th percentile", setups, func(name string, s setup) string {
		m, t := r.stat(name, s, p50), r.stat(name, s, p99)
		if m.N == 0 {
			return "–"
		}
		return fmt.Sprintf("%.0f / %.0f", m.Median, t.Median)
	})
	var several []setup
	for _, s := range setups {
		if s.Disks > 1 {
			several = append(several, s)
		}
	}
	r.table(b, "Slowest disk / fastest disk", several, func(name string, s setup) string { return r.stat(name, s, fairness).Format("%.2f") })
}

func (r *record) table(b *strings.Builder, title string, setups []setup, cell func(name string, s setup) string) {
	if len(setups) == 0 {
		return
	}
	names := r.measured()
	fmt.Fprintf(b, "\n%s:\n\n| disks | depth | %s |\n|---|---|%s\n", title, strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	for _, s := range setups {
		fmt.Fprintf(b, "| %d | %d |", s.Disks, s.Depth)
		for _, name := range names {
			fmt.Fprintf(b, " %s |", cell(name, s))
		}
		b.WriteByte('\n')
	}
}
