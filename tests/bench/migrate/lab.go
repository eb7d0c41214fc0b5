package main

import (
	"context"
	"os"
	"path/filepath"
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
	share := filepath.Dir(o.raw)
	if err := os.MkdirAll(share, 0o755); err != nil {
		return err
	}
	return nullblk.RunInLab(ctx, lab.Options{
		Modules:  []string{"veth"},
		Drives:   []string{lab.SlowDrive(image.Name(), slowIOPS)},
		Deadline: 6 * time.Hour,
		Shares:   []string{share},
	}, "-host", o.host)
}
