package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/ebb-vmm/ebb/cli/control"
)

func diskCommand() *cli.Command {
	return &cli.Command{
		Name:         "disk",
		Usage:        "add, remove and resize the disks of a running VM",
		UsageText:    "ebb disk add NAME path=FILE[,KEY=VALUE]... | ebb disk remove NAME ID [--timeout 30s] | ebb disk resize NAME ID SIZE",
		OnUsageError: optionError,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("there is no command `ebb disk %s`: write add, remove or resize", c.Args().First())
			}
			return usagef("disk needs to know what to do: write %s", c.Command.UsageText)
		},
		Subcommands: []*cli.Command{diskAddCommand(), diskRemoveCommand(), diskResizeCommand()},
	}
}

func diskAddCommand() *cli.Command {
	return vmCommand(&cli.Command{
		Name:        "add",
		Usage:       "attach a disk and print its id",
		UsageText:   "ebb disk add NAME path=FILE[,KEY=VALUE]...",
		Description: "The keys are those of `ebb run --disk`:\n" + diskKeysHelp,
	}, func(c *cli.Context, vm *control.Client, args []string) error {
		if _, err := parseKeys(args[1]); err != nil {
			return usagef("disk add %s: %w", args[1], err)
		}
		dir, err := os.Getwd()
		if err != nil {
			return fmt.Errorf("the working directory is not known (%w); change to one that exists, or give an absolute path", reason(err))
		}
		id, err := vm.AddDisk(c.Context, control.DiskToAdd{Disk: args[1], Dir: dir})
		if err != nil {
			return err
		}
		fmt.Println(id)
		return nil
	}, "path=FILE")
}

func diskRemoveCommand() *cli.Command {
	return vmCommand(&cli.Command{
		Name:      "remove",
		Usage:     "detach a disk, once the guest has let go of it",
		UsageText: "ebb disk remove NAME ID [--timeout 30s]",
		Flags:     []cli.Flag{timeoutFlag("the guest")},
		Description: "If the guest doesn't let go of it in time the disk stays. One that lets go later leaves the disk\n" +
			"without power, for another `ebb disk remove` to take out.",
	}, func(c *cli.Context, vm *control.Client, args []string) error {
		if err := checkDiskID(args); err != nil {
			return err
		}
		timeout, err := parseTimeout(c)
		if err != nil {
			return err
		}
		slow := time.AfterFunc(holdUp, func() { tellRemoval(c.Context, vm, args[1]) })
		defer slow.Stop()
		return vm.RemoveDisk(c.Context, args[1], timeout)
	}, "ID")
}

// tellRemoval says what the removal of a disk waits for.
func tellRemoval(ctx context.Context, vm *control.Client, id string) {
	requests := ""
	if s, err := vm.Stats(ctx); err == nil {
		for _, d := range s.Disks {
			if d.ID == id && d.InFlight > 0 {
				requests = fmt.Sprintf(", and for its storage to answer %d requests in flight; until then the disk and its image's lock stay", d.InFlight)
			}
		}
	}
	tell("waiting for the guest to let go of disk %s%s", id, requests)
}

func diskResizeCommand() *cli.Command {
	return vmCommand(&cli.Command{
		Name:      "resize",
		Usage:     "change a disk's size",
		UsageText: "ebb disk resize NAME ID SIZE",
	}, func(c *cli.Context, vm *control.Client, args []string) error {
		if err := checkDiskID(args); err != nil {
			return err
		}
		size, err := parseDiskSize(args[2])
		if err != nil {
			return usagef("disk resize %s: %w", args[2], err)
		}
		return vm.ResizeDisk(c.Context, args[1], size)
	}, "ID", "SIZE")
}

// checkDiskID checks ID, which is behind NAME.
func checkDiskID(args []string) error {
	if !control.ValidName(args[1]) {
		return usagef("%q is no disk's id; `ebb stats %s` lists them", args[1], args[0])
	}
	return nil
}

// sectorSize is virtio's unit of a disk's capacity, in bytes.
const sectorSize = 512

func parseDiskSize(s string) (uint64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return 0, errors.New("not a size; write it as 512M or 10G")
	}
	return uint64(n), checkDiskSize(uint64(n))
}

func checkDiskSize(n uint64) error {
	if n == 0 || n%sectorSize != 0 {
		return fmt.Errorf("%d bytes are no disk's size; give a multiple of %d", n, sectorSize)
	}
	return nil
}
