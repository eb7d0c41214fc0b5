package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli/control"
)

// listLimit is how long each of several VMs may take to answer.
const listLimit = 2 * time.Second

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

func listCommand() *cli.Command {
	return &cli.Command{
		Name:         "list",
		Usage:        "list the VMs that run",
		UsageText:    "ebb list [--json]",
		Flags:        []cli.Flag{jsonFlag()},
		OnUsageError: optionError,
		Action: func(c *cli.Context) error {
			if err := tooMany(c, 0); err != nil {
				return err
			}
			names, err := control.Names()
			if err != nil {
				return err
			}
			list := []control.Info{}
			for _, v := range ask(c.Context, names, (*control.Client).Info) {
				switch {
				case v.err == nil:
					list = append(list, v.answer)
				case !isGone(v.err):
					list = append(list, control.Info{Name: v.name, State: "no answer", Disks: []string{}})
				}
			}
			if c.Bool("json") {
				return printJSON(list)
			}
			return printList(os.Stdout, list)
		},
	}
}

// isGone reports whether err says that there is no such VM any more.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// asked is what one VM answered.
type asked[T any] struct {
	name   string
	answer T
	err    error
}

// ask puts a question to several VMs at once.
func ask[T any](ctx context.Context, names []string, question func(*control.Client, context.Context) (T, error)) []asked[T] {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	answers := make([]asked[T], len(names))
	var asking sync.WaitGroup
	for i, name := range names {
		asking.Go(func() {
			a := asked[T]{name: name}
			var vm *control.Client
			if vm, a.err = control.Find(name); a.err == nil {
				defer vm.Close()
				a.answer, a.err = question(vm, ctx)
			}
			answers[i] = a
		})
	}
	asking.Wait()
	return answers
}

func printList(w io.Writer, list []control.Info) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPID\tSTATE\tVCPUS\tMEMORY\tDISKS\tUPTIME")
	for _, v := range list {
		if v.PID == 0 {
			fmt.Fprintf(t, "%s\t-\t%s\t-\t-\t-\t-\n", v.Name, v.State)
			continue
		}
		state := v.State
		if v.Migrating {
			state += ", migrating"
		}
		if v.Reason != "" {
			state += fmt.Sprintf(" (%s)", v.Reason)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\t%d\t%v\n", v.Name, v.PID, state, v.VCPUs, size(v.Memory), len(v.Disks), uptime(v.Uptime))
	}
	return t.Flush()
}

// size writes bytes as ebb's options take them.
func size(bytes uint64) string {
	return units.CustomSize("%.4g%s", float64(bytes), 1024, []string{"", "K", "M", "G", "T", "P", "E"})
}

func uptime(seconds float64) time.Duration {
	return time.Duration(seconds) * time.Second
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
