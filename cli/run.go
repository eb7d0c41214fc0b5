package cli

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/machine"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "boot a kernel and stay until the guest ends",
		Description: "Exit codes: 0 the guest powered off, 1 ebb failed, 2 usage, 3 the guest reset (with --no-reboot),\n" +
			"4 the guest panicked, 5 it was migrated away. On the console Ctrl-A x ends the guest and Ctrl-A h\n" +
			"lists the other keys.\n\nA disk is --disk path=FILE[,KEY=VALUE]... with the keys\n" + diskKeysHelp,
		UsageText: "ebb run --kernel FILE [--initrd FILE] [--append ARGS] [--memory 512M] [--cpus N] [--disk path=FILE,...]...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kernel", Usage: "kernel `FILE`: a bzImage, or an ELF file with a PVH note or a 64-bit entry point"},
			&cli.StringFlag{Name: "initrd", Usage: "initial RAM disk `FILE`"},
			&cli.StringFlag{Name: "append", Usage: "kernel command line `ARGS`", Value: "console=ttyS0"},
			&cli.StringFlag{Name: "memory", Usage: "guest memory `SIZE`, such as 512M or 4G, a multiple of 2M", Value: "512M"},
			&cli.StringFlag{Name: "cpus", Usage: "`NUMBER` of vCPUs", Value: "1"},
			&cli.StringFlag{Name: "name", Usage: "the VM's `NAME`, unique on this host (default: ebb-PID)"},
			&cli.StringSliceFlag{Name: diskOption, Usage: "a disk, as often as needed; the `KEYS` are above"},
			&cli.StringFlag{Name: "aio", Usage: "disk `ENGINE`: uring, native or threads", Value: "uring"},
			&cli.StringFlag{Name: "aio-max", Usage: "`NUMBER` of disk requests in flight at most, all disks together", Value: "32768"},
			&cli.StringFlag{Name: "hotplug-slots", Usage: "`NUMBER` of disks that can be added while the guest runs", Value: strconv.Itoa(machine.DefaultHotplugSlots)},
			&cli.StringFlag{Name: "console", Usage: "`WHERE` the serial console is: stdio, none or file:FILE", Value: "stdio"},
			&cli.StringFlag{Name: "control", Usage: "control socket `PATH` (default: by the VM's name in $XDG_RUNTIME_DIR/ebb)"},
			&cli.BoolFlag{Name: "no-reboot", Usage: "end when the guest resets (exit code 3) instead of booting again"},
			&cli.StringFlag{Name: configOption, Usage: "read options from `FILE`, one a line without the dashes; those given here win"},
		},
		Action:       run,
		OnUsageError: optionError,
	}
}

func run(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	disks, err := applyConfig(c)
	if err != nil {
		return err
	}
	cfg, err := machineConfig(c, append(disks, c.StringSlice(diskOption)...))
	if err != nil {
		return err
	}
	spec, err := parseConsole(c.String("console"))
	if err != nil {
		return err
	}
	name := fmt.Sprintf("ebb-%d", os.Getpid())
	if c.IsSet("name") {
		name = c.String("name")
	}
	if err := checkName(name); err != nil {
		return err
	}
	place, err := control.Claim(name, c.String("control"))
	if err != nil {
		return err
	}
	defer place.Release() // when all of the machine is given back
	return runMachine(cfg, spec, place)
}

func checkName(name string) error {
	if !control.ValidName(name) {
		return usagef("--name %q is no name; use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit", name)
	}
	return nil
}

func runMachine(cfg machine.Config, spec consoleSpec, place *control.Place) error {
	// A console that nobody reads any more is no reason to end the guest.
	signal.Ignore(unix.SIGPIPE)
	var out lateWriter
	cfg.Console = &out
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: shortTime}))
	m, err := machine.New(cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	server := place.Serve(newControlled(m, place.Name(), cfg), cfg.Log)
	defer server.Finish(endText(0, nil)) // if it comes no further
	// Before the terminal is touched: from here on every signal restores it.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	console, err := spec.connect(&out, files(cfg))
	if err != nil {
		return err
	}
	if err := console.listen(m, cfg.Log); err != nil {
		return err
	}
	defer endOnSignals(signals, m, console.restore)()

	end, err := m.Run()
	server.Finish(endText(end, err))
	console.finish(err == nil)
	return exitOf(end, err, cfg.Log)
}

// exitOf is the exit code of a guest's end.
func exitOf(end machine.End, err error, log *slog.Logger) error {
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
	case machine.Migrated:
		return guestEnd(exitMigrated)
	default:
		return fmt.Errorf("the guest was %v", end)
	}
}

// files names what a machine reads, and its disks.
func files(cfg machine.Config) []namedFile {
	list := []namedFile{{"--kernel", cfg.Kernel}}
	if cfg.Initrd != "" {
		list = append(list, namedFile{"--initrd", cfg.Initrd})
	}
	for _, d := range cfg.Disks {
		list = append(list, namedFile{"--disk " + d.ID, d.Path})
	}
	return list
}

func machineConfig(c *cli.Context, disks []string) (cfg machine.Config, err error) {
	cfg = machine.Config{
		Kernel: c.String("kernel"), Initrd: c.String("initrd"), Cmdline: c.String("append"),
		NoReboot: c.Bool("no-reboot"),
	}
	if cfg.Kernel == "" {
		return cfg, usagef("--kernel is missing: give a bzImage or an ELF file")
	}
	if cfg.CPUs, err = parseNumber(c.String("cpus"), 1, machine.MaxCPUs); err != nil {
		return cfg, usagef("--cpus %s: %w", c.String("cpus"), err)
	}
	if cfg.AIO, err = aio.ParseEngine(c.String("aio")); err != nil {
		return cfg, usagef("--aio %s: %w", c.String("aio"), err)
	}
	if cfg.AIOMax, err = parseNumber(c.String("aio-max"), 1, 32768); err != nil {
		return cfg, usagef("--aio-max %s: %w", c.String("aio-max"), err)
	}
	if cfg.HotplugSlots, err = parseNumber(c.String("hotplug-slots"), 0, machine.MaxHotplugSlots); err != nil {
		return cfg, usagef("--hotplug-slots %s: %w", c.String("hotplug-slots"), err)
	}
	if cfg.Memory, err = parseMemory(c.String("memory")); err != nil {
		return cfg, err
	}
	cfg.Disks, err = parseDisks(disks)
	return cfg, err
}

// parseMemory reads a size with a binary unit.
func parseMemory(s string) (uint64, error) {
	const unit = 2 << 20 // bytes: machine.Config.Memory's
	n, err := units.RAMInBytes(s)
	switch {
	case err != nil:
		return 0, usagef("--memory %s: not a size; write it as 512M or 4G", s)
	case s != "" && s[len(s)-1] >= '0' && s[len(s)-1] <= '9' && n < machine.MinMemory:
		return 0, usagef("--memory %s: that is %s bytes; write a unit behind it, as in 512M or 4G", s, s)
	case n < machine.MinMemory || n > machine.MaxMemory:
		return 0, usagef("--memory %s: give %dM to %dG", s, machine.MinMemory>>20, machine.MaxMemory>>30)
	case n%unit != 0:
		return 0, usagef("--memory %s: not a multiple of 2M; give %dM", s, (n/unit+1)*unit>>20)
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

// endOnSignals stops the guest at the first signal, and the process at the
// second: a guest's disk may hang.
func endOnSignals(signals <-chan os.Signal, g guest, restore func()) (undo func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			g.Stop()
		case <-done:
			return
		}
		endNow(signals, done, restore)
	}()
	return func() { close(done) }
}

// endNow ends the process at the next signal, unless done comes first.
func endNow(signals <-chan os.Signal, done <-chan struct{}, restore func()) {
	select {
	case s := <-signals:
		restore()
		fmt.Fprintf(os.Stderr, "ebb: %v again: ended without waiting for the disks\n", s)
		os.Exit(exitFailed)
	case <-done:
	}
}
