package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/machine"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:        "check",
		Usage:       "tell what this host can run",
		Description: "Exit codes: 0 Linux guests run here, 1 they don't.",
		UsageText:   "ebb check",

		OnUsageError: optionError,
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return check(os.Stdout)
		},
	}
}

var errHost = errors.New("this host can't run Linux guests")

// check prints one line per thing a guest needs.
func check(w io.Writer) error {
	kvmErr := checkKVM(w)
	engineErr := checkEngine(w)
	if kvmErr != nil || engineErr != nil {
		return errHost
	}
	return nil
}

func checkKVM(w io.Writer) error {
	host, err := machine.Probe()
	if err != nil {
		fmt.Fprintf(w, "kvm     no: %v\n", err)
		return err
	}
	fmt.Fprintf(w, "kvm     ok: boots Linux, up to %d vCPUs\n", host.MaxCPUs)
	return nil
}

// checkEngine looks for the engine that disks get by default, which is the first that works.
func checkEngine(w io.Writer) error {
	var err error
	for _, kind := range []aio.EngineKind{aio.EngineUring, aio.EngineNative, aio.EngineThreads} {
		if err = aio.Probe(kind); err == nil {
			fmt.Fprintf(w, "%-7s ok\n", kind)
			return nil
		}
		fmt.Fprintf(w, "%-7s no: %v\n", kind, err)
	}
	return err
}
