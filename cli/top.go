package cli

import (
	"context"
	"fmt"
	"os/signal"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli/control"
)

const topPeriod = time.Second

func topCommand() *cli.Command {
	return &cli.Command{
		Name:  "top",
		Usage: "watch what the VMs' disks do",
		Description: "On a terminal the table is renewed each second until q or Ctrl-C. Elsewhere each second's lines\n" +
			"follow the last ones.",
		UsageText:    "ebb top [NAME]",
		BashComplete: completeVM,
		OnUsageError: optionError,
		Action: func(c *cli.Context) error {
			if err := tooMany(c, 1); err != nil {
				return err
			}
			names := control.Names
			if name := c.Args().First(); c.NArg() > 0 {
				vm, err := findVM(name)
				if err != nil {
					return err
				}
				defer vm.Close()
				if _, err := vm.Info(c.Context); err != nil {
					return err
				}
				names = func() ([]string, error) { return []string{name}, nil }
			}
			ctx, stop := signal.NotifyContext(c.Context, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
			defer stop()
			view, err := newTopView(stop)
			if err != nil {
				return err
			}
			defer view.close()
			return top(ctx, names, c.NArg() > 0, view)
		},
	}
}

// top draws each second's table until ctx ends or, if one VM was named, until
// that is gone.
func top(ctx context.Context, names func() ([]string, error), named bool, view topView) error {
	tick := time.NewTicker(topPeriod)
	defer tick.Stop()
	before := map[string]topSample{}
	for {
		list, err := names()
		if err != nil {
			return err
		}
		var (
			lines []string
			now   = map[string]topSample{}
		)
		for _, v := range ask(ctx, list, topAsk) {
			switch {
			case ctx.Err() != nil:
				return nil
			case v.err == nil:
				now[v.name] = v.answer
				lines = append(lines, topLines(before[v.name], v.answer)...)
			case named && isGone(v.err):
				return nil
			case !isGone(v.err):
				lines = append(lines, fmt.Sprintf("%-16s %s", v.name, "(no answer)"))
			}
		}
		if err := view.draw(lines); err != nil {
			return err
		}
		before = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// topSample is a VM at one moment.
type topSample struct {
	info  control.Info
	stats control.Stats
}

func topAsk(vm *control.Client, ctx context.Context) (s topSample, err error) {
	if s.info, err = vm.Info(ctx); err != nil {
		return s, err
	}
	s.stats, err = vm.Stats(ctx)
	return s, err
}

const topHeader = "VM               DISK          READ/s  WRITE/s   LONG/s  READ B/s WRITE B/s  ERRORS/s  IN FLIGHT  AT MOST      P95"

// topLines describes what a VM did between two samples: a line for its engine
// and one for each disk. Rates need both.
func topLines(before, now topSample) (lines []string) {
	seconds := now.stats.Uptime - before.stats.Uptime
	known := before.info.PID == now.info.PID && seconds > 0
	old := map[string]control.DiskStats{}
	for _, d := range before.stats.Disks {
		old[d.ID] = d
	}
	var sum topRates
	for _, d := range now.stats.Disks {
		o, same := old[d.ID]
		rates := ratesOf(o, d, seconds)
		rates.known = known && same && !rates.negative()
		sum.add(rates)
		atMost := "-"
		if d.Window != nil {
			atMost = fmt.Sprint(*d.Window)
		}
		lines = append(lines, topLine(now.info.Name, d.ID, rates, d.InFlight, atMost, latency(d.GraceP95)))
	}
	sum.known = known
	e := now.stats.Engine
	engine := topLine(now.info.Name, "("+now.info.State+")", sum, e.InFlight, fmt.Sprint(e.Capacity), "")
	return append([]string{engine}, lines...)
}

func topLine(vm, disk string, r topRates, inFlight int, atMost, p95 string) string {
	rate := func(v float64, bytes bool) string {
		switch {
		case !r.known:
			return "-"
		case bytes:
			return size(uint64(v))
		default:
			return fmt.Sprintf("%.0f", v)
		}
	}
	return strings.TrimRight(fmt.Sprintf("%-16s %-10s %9s %8s %8s %9s %9s %9s %10d %8s %8s", vm, disk,
		rate(r.read, false), rate(r.write, false), rate(r.long, false), rate(r.readBytes, true), rate(r.writeBytes, true),
		rate(r.errors, false), inFlight, atMost, p95), " ")
}

// topRates are per second.
type topRates struct {
	known                                            bool
	read, write, long, readBytes, writeBytes, errors float64
}

func ratesOf(before, now control.DiskStats, seconds float64) topRates {
	rate := func(before, now uint64) float64 { return float64(int64(now-before)) / seconds }
	failed := func(d control.DiskStats) uint64 { return d.Read.Errors + d.Write.Errors + d.Long.Errors }
	return topRates{
		read:       rate(before.Read.Requests, now.Read.Requests),
		write:      rate(before.Write.Requests, now.Write.Requests),
		long:       rate(before.Long.Requests, now.Long.Requests),
		readBytes:  rate(before.Read.Bytes, now.Read.Bytes),
		writeBytes: rate(before.Write.Bytes, now.Write.Bytes),
		errors:     rate(failed(before), failed(now)),
	}
}

// negative reports whether the counters began anew in between: the guest booted.
func (r topRates) negative() bool {
	return min(r.read, r.write, r.long, r.readBytes, r.writeBytes, r.errors) < 0
}

func (r *topRates) add(o topRates) {
	if !o.known {
		return
	}
	r.read += o.read
	r.write += o.write
	r.long += o.long
	r.readBytes += o.readBytes
	r.writeBytes += o.writeBytes
	r.errors += o.errors
}
