// Package cli is ebb's command line: it turns options into a machine's
// configuration, connects the console, and turns how a guest ended into an exit
// code. docs/cli.md describes it for users.
package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/urfave/cli/v2"
)

// Exit codes.
const (
	exitPoweredOff = 0
	exitFailed     = 1
	exitUsage      = 2
	exitReset      = 3 // with --no-reboot
	exitPanicked   = 4
	exitMigrated   = 5
)

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// guestEnd is an exit code that is not a failure of ebb's.
type guestEnd int

func (g guestEnd) Error() string { return fmt.Sprintf("exit code %d", int(g)) }

// A signal is the main thread's to take, and while that hangs in a system call on a disk, as
// any thread with an engine's work may, nobody takes it. So it is kept from such work: it runs
// the main goroutine only.
func init() { runtime.LockOSThread() }

// helpWidth is where lines of a help are broken, in columns. An option's should not reach it: its second line would not be under its
// first's text.
const helpWidth = 120

func init() {
	cli.HelpPrinter = func(w io.Writer, template string, data any) {
		cli.HelpPrinterCustom(w, template, data, map[string]any{"wrapAt": func() int { return helpWidth }})
	}
}

// Main runs the command line and returns the exit code.
func Main(args []string) int {
	app := &cli.App{
		Name:                 "ebb",
		Usage:                "run Linux guests on KVM, with many disks on one engine",
		HideVersion:          true,
		EnableBashCompletion: true,
		// A --disk has commas of its own.
		DisableSliceFlagSeparator: true,
		Commands:                  commands(),
		OnUsageError:              optionError,
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
	err := app.Run(optionsFirst(helpBehind(args, app.Commands), app.Commands))
	var (
		end   guestEnd
		usage usageError
		help  cli.ExitCoder
	)
	switch {
	case err == nil:
		return exitPoweredOff
	case errors.As(err, &end):
		return int(end)
	case errors.As(err, &usage):
		complain(err)
		return exitUsage
	case errors.As(err, &help): // the library's only one: help about something that isn't there
		complain(errors.New("there is no such command to help with: `ebb help` lists them"))
		return exitUsage
	default:
		complain(err)
		return exitFailed
	}
}

func commands() []*cli.Command {
	list := []*cli.Command{
		runCommand(), listCommand(), statsCommand(), topCommand(), pauseCommand(), resumeCommand(),
		stopCommand(), killCommand(), receiveCommand(), migrateCommand(), diskCommand(), checkCommand(),
	}
	for _, c := range list {
		c.Before = refuseEmptyValues
	}
	return list
}

// refuseEmptyValues refuses an option with an empty value, such as a script's variable that isn't set. Only a
// kernel's command line may be empty.
func refuseEmptyValues(c *cli.Context) error {
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if _, isText := f.(*cli.StringFlag); isText && name != "append" && c.IsSet(name) && c.String(name) == "" {
			return needsValue(name)
		}
	}
	return nil
}

func needsValue(name string) error {
	return usagef("--%s needs a value: write --%s VALUE", name, name)
}

// tell says what ebb is doing.
func tell(format string, args ...any) { fmt.Fprintf(os.Stderr, "ebb: "+format+"\n", args...) }

func complain(err error) { fmt.Fprintln(os.Stderr, "ebb:", oneLine(err)) }

// oneLine is an error's text, of however many lines it was joined.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// reason is a file operation's error without the call and the path that are in
// front of it.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// optionError says in ebb's words what package flag found wrong with an option.
func optionError(c *cli.Context, err error, _ bool) error {
	var name, value string
	said := err.Error()
	switch {
	case scan(said, "flag provided but not defined: -%s", &name):
		return usagef("there is no option --%s: `%s --help` lists them", name, c.Command.HelpName)
	case scan(said, "flag needs an argument: -%s", &name):
		return needsValue(name)
	case scan(said, "invalid boolean value %q for -%s", &value, &name):
		name = strings.TrimSuffix(name, ":")
		return usagef("--%s=%s: write --%s alone, or --%s=false", name, value, name, name)
	}
	return usagef("%w: `%s --help` lists the options", err, c.Command.HelpName)
}

func scan(s, format string, into ...any) bool {
	n, err := fmt.Sscanf(s, format, into...)
	return err == nil && n == len(into)
}

// noArguments refuses what stands behind the options.
func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("%s takes options only, and %q is none: write options with --", c.Command.Name, c.Args().First())
	}
	return nil
}
