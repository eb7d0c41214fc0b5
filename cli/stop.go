package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ebb-vmm/ebb/cli/control"
)

// holdUp is how often who waits for a VM's end looks what holds it up.
const holdUp = 2 * time.Second

func timeoutFlag() cli.Flag {
	return &cli.StringFlag{Name: "timeout", Usage: "how `LONG` to wait for the VM's end", Value: "30s"}
}

func stopCommand() *cli.Command {
	return &cli.Command{
		Name:         "stop",
		Usage:        "press a VM's power button and wait until it has powered off",
		UsageText:    "ebb stop NAME [--timeout 30s]",
		Flags:        []cli.Flag{timeoutFlag()},
		BashComplete: completeVM,
		OnUsageError: optionError,
		Action: func(c *cli.Context) error {
			return endVM(c, func(ctx context.Context, vm *control.Client, name string, timeout time.Duration) error {
				watched, err := vm.WatchEnd(ctx)
				if err != nil {
					return err
				}
				if err := vm.Stop(ctx); err != nil {
					return err
				}
				tell("waiting up to %v for the guest of %s to power off", timeout, name)
				end, err := awaitEnd(ctx, vm, watched)
				if end == "" {
					end = "its process was killed"
				}
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					return fmt.Errorf("%s did not power off within %v; `ebb kill %s` pulls its plug", name, timeout, name)
				case err != nil:
					return err
				case end != control.EndPoweredOff:
					return fmt.Errorf("%s has ended, but not by powering off (%s): check its console", name, end)
				}
				return nil
			})
		},
	}
}

func killCommand() *cli.Command {
	return &cli.Command{
		Name:         "kill",
		Usage:        "end a VM at once, as pulling the plug would",
		UsageText:    "ebb kill NAME [--timeout 30s]",
		Flags:        []cli.Flag{timeoutFlag()},
		BashComplete: completeVM,
		OnUsageError: optionError,
		Action: func(c *cli.Context) error {
			return endVM(c, func(ctx context.Context, vm *control.Client, name string, timeout time.Duration) error {
				info, err := vm.Info(ctx)
				if err != nil {
					return err
				}
				watched, err := vm.WatchEnd(ctx)
				if err != nil {
					return err
				}
				if err := vm.Kill(ctx); err != nil {
					return err
				}
				_, err = awaitEnd(ctx, vm, watched)
				if errors.Is(err, context.DeadlineExceeded) {
					return fmt.Errorf("the guest of %s has ended, but its disks have not let go within %v: give them time, or end process %d with SIGKILL",
						name, timeout, info.PID)
				}
				return err
			})
		},
	}
}

// endVM does what ends the VM that is named on the command line. ctx ends after
// the timeout.
func endVM(c *cli.Context, end func(ctx context.Context, vm *control.Client, name string, timeout time.Duration) error) error {
	args, err := arguments(c, "NAME")
	if err != nil {
		return err
	}
	timeout, err := time.ParseDuration(c.String("timeout"))
	if err != nil || timeout <= 0 {
		return usagef("--timeout %s: give a time such as 30s or 5m", c.String("timeout"))
	}
	vm, err := findVM(args[0])
	if err != nil {
		return err
	}
	defer vm.Close()
	ctx, cancel := context.WithTimeout(c.Context, timeout)
	defer cancel()
	return end(ctx, vm, args[0], timeout)
}

// awaitEnd waits until nothing is left of a VM, and says if its disks hold it up.
func awaitEnd(ctx context.Context, vm *control.Client, watched func() (string, error)) (end string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		end, err = watched()
	}()
	look := time.NewTicker(holdUp)
	defer look.Stop()
	for said := 0; ; {
		select {
		case <-done:
			return end, err
		case <-look.C:
			if n := held(ctx, vm); n != said && n > 0 {
				tell("the guest has ended, and %d disk requests in flight hold it up", n)
				said = n
			}
		}
	}
}

// held returns how many disk requests hold up the end of a guest that is over.
func held(ctx context.Context, vm *control.Client) int {
	i, err := vm.Info(ctx)
	if err != nil || i.State != control.StateEnding {
		return 0
	}
	s, err := vm.Stats(ctx)
	if err != nil {
		return 0
	}
	return s.Engine.InFlight
}
