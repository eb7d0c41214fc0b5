package nullblk

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// InLab does run in a lab: here if this is one, else by RunInLab.
func InLab(ctx context.Context, o lab.Options, run func(ctx context.Context) error) error {
	if lab.InLab() {
		return run(ctx)
	}
	return RunInLab(ctx, o)
}

// RunInLab runs this program again, with more arguments, in a lab where there are null_blk devices and diskbench.
func RunInLab(ctx context.Context, o lab.Options, more ...string) error {
	build, err := guest.BuildDir()
	if err != nil {
		return err
	}
	if _, err := guest.BuildDiskBench(ctx, build); err != nil { // the lab can't keep what it builds
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Modules = append([]string{"null_blk nr_devices=0"}, o.Modules...)
	code, err := lab.Run(ctx, o, slices.Concat([]string{self}, os.Args[1:], more), nil, os.Stdout, os.Stderr)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d in the lab", code)
	}
	return err
}
