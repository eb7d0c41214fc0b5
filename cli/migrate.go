package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/migration/drain"
)

// cancelLimit is how long a cancelled migration may take to say that the guest goes on. A test changes it.
var cancelLimit = 30 * time.Second

func tlsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "tls-dir", Usage: "`DIRECTORY` with this host's cert.pem and key.pem, and ca.pem"},
		&cli.BoolFlag{Name: "insecure", Usage: "without TLS: others can read and change the guest"},
	}
}

func migrateCommand() *cli.Command {
	return vmCommand(&cli.Command{
		Name:  "migrate",
		Usage: "move a running VM to another host, where `ebb receive` waits",
		Description: "Before the vCPUs stop, the disks' requests ebb away while the guest runs. Until the last moment Ctrl-C\n" +
			"cancels, and whatever fails, the guest goes on here.",
		UsageText: "ebb migrate NAME tcp:HOST:PORT [--downtime 50ms] [--stall 150ms] [--drain adaptive|serial|off] [--streams N] [--bandwidth R] " +
			"[--timeout 10m] [--on-timeout cancel|force] [--allow-cached] [--tls-dir D | --insecure] [--report FILE] [--json]",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "downtime", Usage: "how `LONG` the vCPUs may stand", Value: "50ms"},
			&cli.StringFlag{Name: "stall", Usage: "how `LONG` a disk may take no requests", Value: "150ms"},
			&cli.StringFlag{Name: "drain", Usage: "`POLICY`: adaptive, serial (one request at a time) or off (stop, then wait)", Value: "adaptive"},
			&cli.StringFlag{Name: "streams", Usage: "`NUMBER` of connections for memory", Value: strconv.Itoa(migration.DefaultStreams)},
			&cli.StringFlag{Name: "bandwidth", Usage: "most `BYTES` of memory a second, such as 100M, but for the last of it"},
			&cli.StringFlag{Name: "timeout", Usage: "how `LONG` all of it may take", Value: "10m"},
			&cli.StringFlag{Name: "on-timeout", Usage: "`WHAT` then: cancel, or force, which may exceed --downtime and --stall", Value: "cancel"},
			&cli.BoolFlag{Name: "allow-cached", Usage: "images without direct are on storage that keeps hosts' caches coherent"},
			&cli.StringFlag{Name: "report", Usage: "write all that was measured to `FILE`, as JSON"},
			&cli.BoolFlag{Name: "json", Usage: "print progress and the result as JSON, an object a line"},
		}, tlsFlags()...),
	}, func(c *cli.Context, vm *control.Client, args []string) error {
		m, err := migrationOptions(c, args[1])
		if err != nil {
			return err
		}
		return migrate(c, vm, m)
	}, "tcp:HOST:PORT")
}

func migrationOptions(c *cli.Context, address string) (m control.Migration, err error) {
	if m.Address, err = migration.ParseAddress(address); err != nil {
		return m, usagef("%s: %w", address, err)
	}
	for _, d := range []struct {
		name string
		to   *time.Duration
	}{{"downtime", &m.Downtime}, {"stall", &m.Stall}, {"timeout", &m.Timeout}} {
		s := c.String(d.name)
		if *d.to, err = time.ParseDuration(s); err != nil || *d.to <= 0 {
			return m, usagef("--%s %s: give a time such as 50ms, 2s or 10m", d.name, s)
		}
	}
	m.Drain = c.String("drain")
	if _, err := drain.ParsePolicy(m.Drain); err != nil {
		return m, usagef("--drain %s: write adaptive, serial or off", m.Drain)
	}
	if m.Streams, err = parseNumber(c.String("streams"), 1, migration.MaxStreams); err != nil {
		return m, usagef("--streams %s: %w", c.String("streams"), err)
	}
	if s := c.String("bandwidth"); s != "" {
		n, err := units.RAMInBytes(s)
		if err != nil || n < 1<<20 {
			return m, usagef("--bandwidth %s: give bytes a second, 1M or more, as in 100M or 2G", s)
		}
		m.Bandwidth = uint64(n)
	}
	switch c.String("on-timeout") {
	case "cancel":
	case "force":
		m.Force = true
	default:
		return m, usagef("--on-timeout %s: write cancel or force", c.String("on-timeout"))
	}
	if s := c.String("report"); s != "" {
		if err := writable(s); err != nil { // afterwards it would be too late
			return m, fmt.Errorf("--report %s can't be written (%w); give a file in a directory you may write to", s, reason(err))
		}
	}
	m.AllowCached = c.Bool("allow-cached")
	m.TLSDir, m.Insecure, err = security(c)
	return m, err
}

// writable reports why a file can't be written or made.
func writable(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return unix.Access(filepath.Dir(name), unix.W_OK)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// security reads --tls-dir and --insecure.
func security(c *cli.Context) (dir string, insecure bool, err error) {
	dir, insecure = c.String("tls-dir"), c.Bool("insecure")
	switch {
	case dir != "" && insecure:
		return "", false, usagef("--tls-dir and --insecure exclude each other: leave one out")
	case dir != "":
		if dir, err = filepath.Abs(dir); err != nil {
			return "", false, err
		}
	}
	return dir, insecure, nil
}

// migrate moves the VM and shows how it goes.
func migrate(c *cli.Context, vm *control.Client, m control.Migration) error {
	signals, stop := signal.NotifyContext(c.Context, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	view := newMigrationView(c.Bool("json"))
	report, err := vm.Migrate(signals, m, func(p json.RawMessage) {
		var progress migration.Progress
		if json.Unmarshal(p, &progress) == nil {
			view.progress(progress, p)
		}
	})
	view.end()
	file := c.String("report")
	if signals.Err() != nil && errors.Is(err, context.Canceled) {
		if file != "" {
			_ = os.Remove(file) // it would be that of another migration
		}
		return cancelled(c.Context, vm)
	}
	if report == nil {
		return err
	}
	if file != "" {
		if err := os.WriteFile(file, append(report, '\n'), 0o644); err != nil {
			tell("--report %s: %v", file, reason(err)) // the exit code tells where the guest is
		}
	}
	var r migration.Report
	if e := json.Unmarshal(report, &r); e != nil {
		return errors.Join(err, e)
	}
	view.result(&r, report)
	return err
}

// cancelled waits until a cancelled migration is over, and says what became of the guest.
func cancelled(ctx context.Context, vm *control.Client) error {
	limit := time.After(cancelLimit)
	i, err := vm.Info(ctx)
	for err == nil && i.Migrating {
		select {
		case <-time.After(20 * time.Millisecond):
			i, err = vm.Info(ctx)
		case <-limit:
			return errors.New("cancelled, but it is not over yet: the destination may still have locks of the images, and until they are back the guest's requests wait; " +
				"`ebb list` shows whether it is still migrating")
		}
	}
	if err != nil {
		return fmt.Errorf("cancelled too late: the guest may have left (%w)", err)
	}
	switch {
	case i.State == control.StateEnding:
		return errors.New("cancelled too late: the guest has left, or ended")
	case i.Reason != "": // the link was lost where nobody knows which side the guest is on, or a disk has failed
		return fmt.Errorf("cancelled, but the guest does not go on here (%s): %s", i.State, i.Reason)
	}
	return fmt.Errorf("cancelled: the guest goes on here (%s)", i.State)
}
