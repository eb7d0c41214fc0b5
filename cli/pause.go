package cli

import (
	"github.com/urfave/cli/v2"

	"github.com/ebb-vmm/ebb/cli/control"
)

func pauseCommand() *cli.Command {
	return vmCommand(&cli.Command{
		Name:  "pause",
		Usage: "stop a VM's vCPUs and disks until resume",
		Description: "It returns when no vCPU runs and no disk request is in flight. If a disk doesn't answer\n" +
			"within 30 s the VM runs on and the exit code is 1.",
		UsageText: "ebb pause NAME",
	}, func(c *cli.Context, vm *control.Client, _ []string) error { return vm.Pause(c.Context) })
}

func resumeCommand() *cli.Command {
	return vmCommand(&cli.Command{
		Name:  "resume",
		Usage: "let a paused VM go on",
		Description: "After a migration whose end nobody confirmed, the VM stands on both sides. Make sure that it doesn't\n" +
			"run on the other one, and give --force.",
		UsageText: "ebb resume NAME [--force]",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "even if it may run on the other side of a migration"}},
	}, func(c *cli.Context, vm *control.Client, _ []string) error {
		return vm.Resume(c.Context, c.Bool("force"))
	})
}
