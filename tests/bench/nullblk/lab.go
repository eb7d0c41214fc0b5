package nullblk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// RunInLab runs this program again in a lab, where there are null_blk devices and diskbench, and
// which may write to the folder of doc.
func RunInLab(ctx context.Context, doc string) error {
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
	code, err := lab.Run(ctx, lab.Options{
		Modules:  []string{"null_blk nr_devices=0", "dm-mod"},
		Deadline: time.Hour,
		Shares:   []string{filepath.Dir(doc)},
	}, append([]string{self}, os.Args[1:]...), nil, os.Stdout, os.Stderr)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d in the lab", code)
	}
	return err
}
