// Package harness is what the benchmarks have in common: how they begin and end, what they keep of what they measured, and
// how they describe the machine.
package harness

import (
	"context"
	"fmt"
	"os"
	"os/signal"
)

// Main runs a benchmark, until it is interrupted at most. If it fails, the process ends with 1.
func Main(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench/%s: %v\n", name, err)
		os.Exit(1)
	}
}
