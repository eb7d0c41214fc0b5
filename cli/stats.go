package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ebb-vmm/ebb/cli/control"
)

func statsCommand() *cli.Command {
	return vmCommand(&cli.Command{
		Name:      "stats",
		Usage:     "show what a VM's disks have done, and their engine",
		UsageText: "ebb stats NAME [--json]",
		Flags:     []cli.Flag{jsonFlag()},
	}, func(c *cli.Context, vm *control.Client, _ []string) error {
		s, err := vm.Stats(c.Context)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return printJSON(s)
		}
		return printStats(os.Stdout, s)
	})
}

func printStats(w io.Writer, s control.Stats) error {
	e := s.Engine
	fmt.Fprintf(w, "engine %s: capacity %d, demand %d, in flight %d, lent %d, written off %d\n",
		e.Kind, e.Capacity, e.Demand, e.InFlight, e.Lent, e.WrittenOff)
	if len(s.Disks) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nDISK\tIN FLIGHT\tWINDOW\tSHARE\tLENT\tWRITTEN OFF\tKEPT\tLOST\tDRAIN P95\t")
	for _, d := range s.Disks {
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t\n", d.ID, d.InFlight, window(d), d.Share, d.Lent, d.WrittenOff, d.Kept, lost(d), latency(d.GraceP95))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t, "\nDISK\tCLASS\tREQUESTS\tBYTES\tERRORS\tP50\tP99\tMAX\t")
	for _, d := range s.Disks {
		for _, c := range []struct {
			name string
			control.ClassStats
		}{{"read", d.Read}, {"write", d.Write}, {"long", d.Long}} {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\t\n", d.ID, c.name, c.Requests, size(c.Bytes), c.Errors,
				latency(c.Latency.P50), latency(c.Latency.P99), latency(c.Latency.Max))
		}
	}
	return t.Flush()
}

// window writes a disk's window and who bounds it so.
func window(d control.DiskStats) string {
	if d.Window == nil {
		return "-"
	}
	var causes []string
	for _, cause := range slices.Sorted(maps.Keys(d.Windows)) {
		if d.Windows[cause] == *d.Window {
			causes = append(causes, cause)
		}
	}
	if len(causes) == 0 {
		return fmt.Sprint(*d.Window)
	}
	return fmt.Sprintf("%d (%s)", *d.Window, strings.Join(causes, ", "))
}

// lost says whether the guest's writes are lost.
func lost(d control.DiskStats) string {
	if d.Lost {
		return "writes"
	}
	return "-"
}

// latency writes three digits; none is a dash.
func latency(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}
