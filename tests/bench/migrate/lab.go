package main

import (
	"context"
	"os"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/nullblk"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// runInLab runs this program again in a lab that has the disks, and may write to the folder of o.raw.
func (o options) runInLab(ctx context.Context) error {
	image, err := os.CreateTemp("", "bench-migrate-")
	if err != nil {
		return err
	}
	defer os.Remove(image.Name())
	defer image.Close()
	if err := image.Truncate(diskSize); err != nil {
		return err
	}
	if err := os.MkdirAll(o.raw, 0o755); err != nil {
		return err
	}
	l := lab.Options{
		Modules:  []string{"veth"},
		Drives:   []string{lab.SlowDrive(image.Name(), slowIOPS)},
		Deadline: 6 * time.Hour,
		Shares:   []string{o.raw},
	}
	if o.ram {
		l.MemoryMiB = 2*o.memoryMiB + 2048 // source, destination, and what else there is
	}
	return nullblk.RunInLab(ctx, l, "-host", o.host)
}
