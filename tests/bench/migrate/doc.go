package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// publish prints the goals and writes the document, of disks and of memory, either of which may be nil.
func publish(doc string, disks, memory *record) error {
	if disks == nil && memory == nil {
		return errors.New("nothing was measured yet")
	}
	fmt.Println()
	if disks != nil {
		printGoals(disks.diskGoals())
	}
	if memory != nil {
		printGoals(memory.memoryGoals())
	}
	if err := os.WriteFile(doc, []byte(markdown(disks, memory)), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nwritten: %s\n", doc)
	return nil
}

func markdown(disks, memory *record) string {
	var b strings.Builder
	b.WriteString("# Live migration, beside QEMU\n")
	if disks != nil {
		disks.writeDisks(&b)
	}
	if memory != nil {
		memory.writeMemory(&b)
	}
	return b.String()
}

func printGoals(goals []goal) {
	for _, g := range goals {
		fmt.Println(g)
	}
}

func writeGoals(b *strings.Builder, goals []goal) {
	b.WriteString("\n| goal | | measured | |\n|---|---|---|---|\n")
	for _, g := range goals {
		if g.measured {
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", g.name, g.limitText(), g.number(g.got), g.verdict())
		}
	}
}

// failures has a line for each migration that failed.
func (r *record) failures(b *strings.Builder) {
	title := "\n## Migrations that failed\n\nThe guest then ran on at the source; one that \"said nothing\" did so at the destination for as long as it was watched.\n\n"
	for _, s := range r.Samples {
		if s.Failed != "" {
			why, _, _ := strings.Cut(s.Failed, "\n")
			fmt.Fprintf(b, "%s- %v: %s\n", title, s.Cell, why)
			title = ""
		}
	}
}
