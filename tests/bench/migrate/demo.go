package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/ebb-vmm/ebb/tests/bench/moving"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// hosts are two network namespaces with a link between them.
var hosts = [2]moving.Place{
	{Address: "10.99.0.1", Command: []string{"ip", "netns", "exec", "ebb-src"}},
	{Address: "10.99.0.2", Command: []string{"ip", "netns", "exec", "ebb-dst"}},
}

// makeHosts makes them; remove undoes it.
func makeHosts() (remove func(), err error) {
	remove = func() {
		_ = exec.Command("ip", "netns", "del", "ebb-src").Run() // the link goes with them
		_ = exec.Command("ip", "netns", "del", "ebb-dst").Run()
	}
	remove()
	for line := range strings.Lines(`netns add ebb-src
netns add ebb-dst
-n ebb-src link add veth0 type veth peer name veth0 netns ebb-dst
-n ebb-src addr add 10.99.0.1/24 dev veth0
-n ebb-dst addr add 10.99.0.2/24 dev veth0
-n ebb-src link set lo up
-n ebb-dst link set lo up
-n ebb-src link set veth0 up
-n ebb-dst link set veth0 up
`) {
		if said, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			remove()
			return nil, fmt.Errorf("ip %s: %w: %s", strings.TrimSpace(line), err, said)
		}
	}
	return remove, nil
}

// demonstrate migrates a guest with 64 writes outstanding on the slow disk from one host to the other, once with each
// policy, and once with QEMU.
func (b *bench) demonstrate(ctx context.Context, disks map[string]disk) error {
	remove, err := makeHosts()
	if err != nil {
		return err
	}
	defer remove()
	const depth = 64
	load := cell{Guest: ring3, Disk: slow, Depth: depth}
	if lab.InLab() {
		if err := b.warmUp(ctx, []cell{load}, disks); err != nil {
			return err
		}
	}
	fmt.Printf("A guest keeps %d writes outstanding on a disk of %d requests a second, and moves between two hosts.\n\n", depth, slowIOPS)
	const row = "%-13s %12s %14s %16s %16s %12s %10s\n"
	fmt.Printf(row, "", "guest's gap", "without", "longest request", "without", "I/O held", "in flight")
	fmt.Printf(row, "", "", "migration", "", "migration", "", "at stop")
	for _, c := range candidates {
		b.cell, b.disk = load.by(c), disks[slow]
		samples, err := b.visit(ctx, 1, hosts)
		if err != nil {
			return err
		}
		for _, s := range samples {
			if s.Failed != "" {
				fmt.Printf("%-13s %s\n", c.candidate(), s.Failed)
				continue
			}
			f := s.Figures
			text := func(v float64) string { return fmt.Sprintf("%.0f ms", v) }
			held, inFlight := text(ms(f.Own.Held)), fmt.Sprint(f.Own.InFlight)
			if c.VMM != "ebb" {
				held, inFlight = "", ""
			}
			fmt.Printf(row, c.candidate(), text(blackout(f)), text(controlGap(f)), text(latency(f)), text(controlLatency(f)), held, inFlight)
		}
	}
	fmt.Println("\nThe gap is the guest's own, with what its clock lost.")
	return nil
}
