package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ebb-vmm/ebb/cli/control"
)

// holdUp is how often who waits for a VM's end looks what holds it up.
const holdUp = 2 * time.Second

func timeoutFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: "timeout", Usage: "how `LONG` to wait for " + what, Value: "30s"}
}

func parseTimeout(c *cli.Context) (time.Duration, error) {
	timeout, err := time.ParseDuration(c.String("timeout"))
	if err != nil || timeout <= 0 {
		return 0, usagef("--timeout %s: give a time such as 30s or 5m", c.String("timeout"))
	}
	return timeout, nil
}

func stopCommand() *cli.Command {
	return &cli.Command{
		Name:         "stop",
		Usage:        "press a VM's power button and wait until it has powered off",
		UsageText:    "ebb stop NAME [--timeout 30s]",
		Flags:        []cli.Flag{timeoutFlag("the VM's end")},
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
					requests, over := inFlight(c.Context, vm)
					if over {
						return notLetGo(name, timeout, requests)
					}
					if requests != "" { // a guest may wait for them
						requests = " (its disk requests in flight: " + requests + ")"
					}
					return fmt.Errorf("%s did not power off within %v%s; `ebb kill %s` pulls its plug", name, timeout, requests, name)
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
		Flags:        []cli.Flag{timeoutFlag("the VM's end")},
		BashComplete: completeVM,
		OnUsageError: optionError,
		Action: func(c *cli.Context) error {
			return endVM(c, func(ctx context.Context, vm *control.Client, name string, timeout time.Duration) error {
				watched, err := vm.WatchEnd(ctx)
				if err != nil {
					return err
				}
				if err := vm.Kill(ctx); err != nil {
					return err
				}
				_, err = awaitEnd(ctx, vm, watched)
				if errors.Is(err, context.DeadlineExceeded) {
					requests, _ := inFlight(c.Context, vm)
					return notLetGo(name, timeout, requests)
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
	timeout, err := parseTimeout(c)
	if err != nil {
		return err
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
	for said := ""; ; {
		select {
		case <-done:
			return end, err
		case <-look.C:
			if requests, over := inFlight(ctx, vm); over && requests != said && requests != "" {
				tell("the guest has ended; waiting for its requests in flight: %s", requests)
				said = requests
			}
		}
	}
}

// notLetGo says that the guest is over and requests in flight still hold up the VM's end.
func notLetGo(name string, timeout time.Duration, requests string) error {
	if requests == "" {
		requests = "not known"
	}
	return fmt.Errorf("the guest of %s has ended, but its disks have not let go within %v (requests in flight: %s): "+
		"memory and the locks of its images stay until their storage answers; give it time or repair it, and wait on with `ebb kill %s`",
		name, timeout, requests, name)
}

// inFlight names the disks of a VM that have requests in flight, and says whether its guest is over.
func inFlight(ctx context.Context, vm *control.Client) (requests string, over bool) {
	i, err := vm.Info(ctx)
	if err != nil {
		return "", false
	}
	s, err := vm.Stats(ctx)
	if err != nil {
		return "", false
	}
	var disks []string
	for _, d := range s.Disks {
		if d.InFlight > 0 {
			disks = append(disks, fmt.Sprintf("%d of disk %s", d.InFlight, d.ID))
		}
	}
	return strings.Join(disks, ", "), i.State == control.StateEnding
}
