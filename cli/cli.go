// Package cli is ebb's command line: it turns options into a machine's
// configuration, connects the console, and turns how a guest ended into an exit
// code. docs/cli.md describes it for users.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
)

// Exit codes.
const (
	exitPoweredOff = 0
	exitFailed     = 1
	exitUsage      = 2
	exitReset      = 3 // with --no-reboot
	exitPanicked   = 4
)

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// guestEnd is an exit code that is not a failure of ebb's.
type guestEnd int

func (g guestEnd) Error() string { return fmt.Sprintf("exit code %d", int(g)) }

// Main runs the command line and returns the exit code.
func Main(args []string) int {
	app := &cli.App{
		Name:                 "ebb",
		Usage:                "run Linux guests on KVM, with many disks on one engine",
		HideVersion:          true,
		EnableBashCompletion: true,
		// A --disk has commas of its own.
		DisableSliceFlagSeparator: true,
		Commands:                  []*cli.Command{runCommand(), checkCommand()},
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		// The library must neither exit nor print by itself: there is one place for both, below.
		ExitErrHandler: func(*cli.Context, error) {},
		Writer:         os.Stdout,
		ErrWriter:      io.Discard,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("there is no command %q: `ebb help` lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	err := app.Run(args)
	var (
		end   guestEnd
		usage usageError
	)
	switch {
	case err == nil:
		return exitPoweredOff
	case errors.As(err, &end):
		return int(end)
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "ebb:", err)
		return exitUsage
	default:
		fmt.Fprintln(os.Stderr, "ebb:", err)
		return exitFailed
	}
}

// noArguments refuses what stands behind the options.
func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("%s takes options only: %q is none (options begin with --)", c.Command.Name, c.Args().First())
	}
	return nil
}
