package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// runInLab runs this program again in a lab that has the disks, and may write to the folder of o.raw.
func (o options) runInLab(ctx context.Context) error {
	build, err := guest.BuildDir()
	if err != nil {
		return err
	}
	if _, err := guest.BuildDiskBench(ctx, build); err != nil { // the lab can't keep what it builds
		return err
	}
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
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append(append([]string{self}, os.Args[1:]...), "-host", o.host)
	code, err := lab.Run(ctx, lab.Options{
		Modules:  []string{"null_blk nr_devices=0", "veth"},
		Drives:   []string{lab.SlowDrive(image.Name(), slowIOPS)},
		Deadline: 6 * time.Hour,
		Shares:   []string{share},
	}, argv, nil, os.Stdout, os.Stderr)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d in the lab", code)
	}
	return err
}
