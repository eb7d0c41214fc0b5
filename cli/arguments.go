package cli

import (
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ebb-vmm/ebb/cli/control"
)

// optionsFirst moves options in front of the names and other arguments that they
// may stand behind on ebb's command line, as package flag wants them. What
// follows "--" is no option.
func optionsFirst(args []string, commands []*cli.Command) []string {
	if slices.Contains(args, "--generate-bash-completion") {
		return args // which must stay the last, and leaves what is typed so far as it is
	}
	var flags []cli.Flag
	n := 1
	for n < len(args) {
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[n]) })
		if i < 0 {
			break
		}
		flags, commands = commands[i].Flags, commands[i].Subcommands
		n++
	}
	n = min(n, len(args))
	var options, others, dashes []string
	for rest := args[n:]; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			dashes = []string{arg}
			others, rest = append(others, rest...), nil
		case len(arg) < 2 || arg[0] != '-':
			others = append(others, arg)
		case !takesValue(flags, arg):
			options = append(options, arg)
		case len(rest) > 0:
			options = append(options, arg, rest[0])
			rest = rest[1:]
		default: // the value is missing: package flag says so if nothing follows
			options, others = append(options, arg), nil
		}
	}
	return slices.Concat(args[:n], options, dashes, others)
}

// helpBehind turns `ebb help disk add` into `ebb disk help add`: the library's help looks at one name only.
func helpBehind(args []string, commands []*cli.Command) []string {
	if len(args) < 4 || args[1] != "help" && args[1] != "h" {
		return args
	}
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[2]) })
	if i < 0 || commands[i].Subcommands == nil {
		return args
	}
	return slices.Concat(args[:1], []string{args[2], args[1]}, args[3:])
}

// takesValue reports whether the argument behind option belongs to it.
func takesValue(flags []cli.Flag, option string) bool {
	name := strings.TrimPrefix(strings.TrimPrefix(option, "-"), "-")
	for _, f := range flags {
		if _, isSwitch := f.(*cli.BoolFlag); slices.Contains(f.Names(), name) {
			return !isSwitch
		}
	}
	return false
}

// arguments returns a command's arguments, of which there must be as many as
// there are names.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	if len(args) < len(names) {
		return nil, usagef("%s needs %s: write `%s`", c.Command.Name, names[len(args)], c.Command.UsageText)
	}
	return args, tooMany(c, len(names))
}

func tooMany(c *cli.Context, n int) error {
	if c.NArg() > n {
		return usagef("%s takes no argument %q: write `%s`", c.Command.Name, c.Args().Get(n), c.Command.UsageText)
	}
	return nil
}

// vmCommand completes a command for one VM, which is its argument NAME, with others behind it.
// do gets all arguments.
func vmCommand(cmd *cli.Command, do func(c *cli.Context, vm *control.Client, args []string) error, others ...string) *cli.Command {
	cmd.BashComplete = completeVM
	cmd.OnUsageError = optionError
	cmd.Action = func(c *cli.Context) error {
		args, err := arguments(c, append([]string{"NAME"}, others...)...)
		if err != nil {
			return err
		}
		vm, err := findVM(args[0])
		if err != nil {
			return err
		}
		defer vm.Close()
		return do(c, vm, args)
	}
	return cmd
}

// findVM returns a client for the VM that the command line names.
func findVM(name string) (*control.Client, error) {
	vm, err := control.Find(name)
	if err != nil {
		return nil, usageError{err}
	}
	return vm, nil
}

// completeVM completes the name of a VM, and options.
func completeVM(c *cli.Context) {
	if n := len(os.Args); n > 2 && strings.HasPrefix(os.Args[n-2], "-") {
		cli.DefaultCompleteWithFlags(c.Command)(c)
		return
	}
	if c.NArg() > 0 {
		return
	}
	names, _ := control.Names()
	for _, n := range names {
		_, _ = c.App.Writer.Write([]byte(n + "\n"))
	}
}
