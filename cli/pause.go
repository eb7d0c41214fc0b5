package cli

import (
	"context"

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
	}, (*control.Client).Pause)
}

func resumeCommand() *cli.Command {
	return vmCommand(&cli.Command{
		Name:      "resume",
		Usage:     "let a paused VM go on",
		UsageText: "ebb resume NAME",
	}, (*control.Client).Resume)
}

// vmCommand completes a command that only asks a VM for something.
func vmCommand(cmd *cli.Command, do func(*control.Client, context.Context) error) *cli.Command {
	cmd.BashComplete = completeVM
	cmd.OnUsageError = optionError
	cmd.Action = func(c *cli.Context) error {
		args, err := arguments(c, "NAME")
		if err != nil {
			return err
		}
		vm, err := findVM(args[0])
		if err != nil {
			return err
		}
		defer vm.Close()
		return do(vm, c.Context)
	}
	return cmd
}
