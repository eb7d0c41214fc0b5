package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/diskvm"
)

const queueSize = 256

// candidates are ebb and QEMU with each engine, and the bare loop.
func candidates(o options, kernel string) (all []*candidate) {
	add := func(name, engine string, argv func(m diskvm.Machine) []string) {
		all = append(all, &candidate{name: name, run: func(ctx context.Context, s setup, images []string) (result, error) {
			cmdline := fmt.Sprintf("depth=%d size=%d mode=read seconds=%d", s.Depth, requestSize, o.seconds)
			m := diskvm.Machine{Kernel: kernel, Cmdline: cmdline, Engine: engine, Images: images, QueueSize: queueSize}
			b, err := diskvm.Run(ctx, time.Duration(o.seconds)*time.Second+time.Minute, argv(m))
			us := func(d time.Duration) float64 { return float64(d) / 1e3 }
			return result{IOPS: b.IOPS, P50: us(b.P50), P99: us(b.P99), P999: us(b.P999), Fairness: b.Fairness(), Kicks: b.Kicks}, err
		}})
	}
	for _, engine := range o.engines {
		add("ebb "+engine, engine, func(m diskvm.Machine) []string { return m.EBB(o.ebb) })
		add("QEMU "+engine, engine, diskvm.Machine.QEMU)
	}
	return append(all, &candidate{name: bareName, run: func(_ context.Context, s setup, images []string) (result, error) {
		return bare(s, images, time.Duration(o.seconds)*time.Second)
	}})
}
