package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/machine"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "boot a kernel and stay until the guest ends",
		Description: "Exit codes: 0 the guest powered off, 1 ebb failed, 2 usage, 3 the guest reset (with --no-reboot),\n" +
			"4 the guest panicked. On the console Ctrl-A x ends the guest and Ctrl-A h lists the other keys.",
		UsageText: "ebb run --kernel FILE [--initrd FILE] [--append ARGS] [--memory 512M] [--cpus N] [--disk path=FILE,...]...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kernel", Usage: "kernel `FILE`: a bzImage, or an ELF file with a PVH note or a 64-bit entry point"},
			&cli.StringFlag{Name: "initrd", Usage: "initial RAM disk `FILE`"},
			&cli.StringFlag{Name: "append", Usage: "kernel command line `ARGS`", Value: "console=ttyS0"},
			&cli.StringFlag{Name: "memory", Usage: "guest memory `SIZE`, such as 512M or 4G, a multiple of 2M", Value: "512M"},
			&cli.IntFlag{Name: "cpus", Usage: "`NUMBER` of vCPUs", Value: 1},
			&cli.StringFlag{Name: "name", Usage: "the VM's `NAME`, unique on this host (default: ebb-PID)"},
			&cli.StringSliceFlag{Name: "disk", Usage: "a disk `path=FILE[,id=..][,serial=..][,readonly][,direct][,queues=N][,queue-size=N]`, as often as needed"},
			&cli.StringFlag{Name: "aio", Usage: "disk `ENGINE`: uring", Value: "uring"},
			&cli.StringFlag{Name: "console", Usage: "`WHERE` the serial console is: stdio, none or file:FILE", Value: "stdio"},
			&cli.BoolFlag{Name: "no-reboot", Usage: "end when the guest resets (exit code 3) instead of booting again"},
		},
		Action: run,
	}
}

func run(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: shortTime}))
	cfg, err := machineConfig(c)
	if err != nil {
		return err
	}
	cfg.Log = log
	console, err := parseConsole(c.String("console"))
	if err != nil {
		return err
	}
	name := c.String("name")
	if name == "" {
		name = fmt.Sprintf("ebb-%d", os.Getpid())
	}
	release, err := claimName(name)
	if err != nil {
		return err
	}
	defer release()

	// The output's file is opened only once all else is known to be good: nothing
	// is created for a machine that doesn't start.
	var out lateWriter
	cfg.Console = &out
	m, err := machine.New(cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	closeConsole, err := console.connect(&out, m, log)
	if err != nil {
		return err
	}
	defer closeConsole()
	defer endOnSignals(m, closeConsole)()

	end, err := m.Run()
	if err != nil {
		return err
	}
	switch end {
	case machine.PoweredOff:
		return nil
	case machine.Reset:
		return guestEnd(exitReset)
	case machine.Panicked:
		log.Error("the guest's kernel panicked")
		return guestEnd(exitPanicked)
	default:
		return fmt.Errorf("the guest was %v", end)
	}
}

func machineConfig(c *cli.Context) (machine.Config, error) {
	cfg := machine.Config{
		Kernel: c.String("kernel"), Initrd: c.String("initrd"), Cmdline: c.String("append"),
		CPUs: c.Int("cpus"), NoReboot: c.Bool("no-reboot"),
	}
	if cfg.Kernel == "" {
		return cfg, usagef("--kernel is needed: give a bzImage or an ELF file")
	}
	if cfg.CPUs < 1 || cfg.CPUs > machine.MaxCPUs {
		return cfg, usagef("--cpus %d: a guest has 1 to %d vCPUs", cfg.CPUs, machine.MaxCPUs)
	}
	if c.String("aio") != "uring" {
		return cfg, usagef("--aio %s: the engine is uring", c.String("aio"))
	}
	var err error
	if cfg.Memory, err = parseMemory(c.String("memory")); err != nil {
		return cfg, err
	}
	cfg.Disks, err = parseDisks(c.StringSlice("disk"))
	return cfg, err
}

// parseMemory reads a size with a binary unit.
func parseMemory(s string) (uint64, error) {
	n, err := units.RAMInBytes(s)
	switch {
	case err != nil:
		return 0, usagef("--memory %s: not a size; write it as 512M or 4G", s)
	case n < machine.MinMemory || n > machine.MaxMemory:
		return 0, usagef("--memory %s: a guest has %d MiB to %d GiB", s, machine.MinMemory>>20, machine.MaxMemory>>30)
	case n%(2<<20) != 0:
		return 0, usagef("--memory %s: not a multiple of 2M", s)
	}
	return uint64(n), nil
}

// shortTime keeps log lines readable beside a console.
func shortTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.String(slog.TimeKey, a.Value.Time().Format(time.TimeOnly))
	}
	return a
}

// endOnSignals stops the machine at the first signal that asks for it, and the
// process at the second: a guest's disk may hang.
func endOnSignals(m *machine.Machine, restore func()) (undo func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			m.Stop()
		case <-done:
			return
		}
		select {
		case s := <-signals:
			restore()
			fmt.Fprintf(os.Stderr, "ebb: %v again: ended without waiting for the disks\n", s)
			os.Exit(exitFailed)
		case <-done:
		}
	}()
	return func() { signal.Stop(signals); close(done) }
}

// lateWriter is a writer whose destination comes later, before the first Write.
type lateWriter struct{ io.Writer }
