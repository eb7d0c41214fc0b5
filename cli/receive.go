package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/machine"
	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/migration/ram"
)

func receiveCommand() *cli.Command {
	return &cli.Command{
		Name:  "receive",
		Usage: "wait for a VM that `ebb migrate` sends, and run it until its guest ends",
		Description: "It takes one VM. Images are opened only where --disk-path or --disk-dir says, whatever the source\n" +
			"calls them. Exit codes are those of `ebb run`.",
		UsageText: "ebb receive --listen tcp:HOST:PORT [--disk-path ID=FILE]... [--disk-dir D] [--tls-dir D | --insecure] [--name N] [--console WHERE] [--control PATH]",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "`ADDRESS` to wait at, tcp:HOST:PORT"},
			&cli.StringSliceFlag{Name: "disk-path", Usage: "`ID=FILE`: the image of the disk with this id, as often as needed"},
			&cli.StringFlag{Name: "disk-dir", Usage: "`DIRECTORY` with the other disks' images, named as at the source"},
			&cli.StringFlag{Name: "name", Usage: "the VM's `NAME` here (default: its name at the source)"},
			&cli.StringFlag{Name: "console", Usage: "`WHERE` the serial console is: stdio, none or file:FILE", Value: "stdio"},
			&cli.StringFlag{Name: "control", Usage: "control socket `PATH` (default: by the VM's name in $XDG_RUNTIME_DIR/ebb)"},
		}, tlsFlags()...),
		Action:       receiveVM,
		OnUsageError: optionError,
	}
}

func receiveVM(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	listen := c.String("listen")
	if listen == "" {
		return usagef("--listen is missing: write --listen tcp:HOST:PORT")
	}
	address, err := migration.ParseAddress(listen)
	if err != nil {
		return usagef("--listen %s: %w", listen, err)
	}
	h := &incomingHost{name: c.String("name"), control: c.String("control")}
	if h.paths, err = parseDiskPaths(c.StringSlice("disk-path"), c.String("disk-dir")); err != nil {
		return err
	}
	if h.name != "" {
		if err := checkName(h.name); err != nil {
			return err
		}
	}
	if h.console, err = parseConsole(c.String("console")); err != nil {
		return err
	}
	var s migration.Security
	if s.TLSDir, s.Insecure, err = security(c); err != nil {
		return err
	}
	l, err := s.Listen(address)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", listen, err)
	}
	signal.Ignore(unix.SIGPIPE)
	h.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: shortTime}))
	return h.run(c.Context, l)
}

// diskPaths says which images a VM that comes may have.
type diskPaths struct {
	byID map[string]string
	dir  string
}

func parseDiskPaths(list []string, dir string) (p diskPaths, err error) {
	p = diskPaths{byID: map[string]string{}, dir: dir}
	for _, s := range list {
		id, path, ok := strings.Cut(s, "=")
		switch {
		case !ok || path == "" || !control.ValidName(id):
			return p, usagef("--disk-path %s: write ID=FILE, with the id that the disk has at the source", s)
		case p.byID[id] != "":
			return p, usagef("--disk-path %s: disk %s is given twice; leave one", s, id)
		}
		p.byID[id] = path
	}
	if dir != "" {
		if _, err := os.ReadDir(dir); err != nil {
			return p, fmt.Errorf("--disk-dir %s can't be read (%w); give the directory with the disks' images", dir, reason(err))
		}
	}
	return p, nil
}

// find returns the image for a disk. Both names come from the source, and can't name anything outside of --disk-dir.
func (p diskPaths) find(id, file string) (string, error) {
	if path := p.byID[id]; path != "" {
		return path, nil
	}
	switch {
	case !control.ValidName(id):
		return "", fmt.Errorf("%q is no disk's id", id)
	case p.dir == "":
		return "", fmt.Errorf("the destination has no image for disk %s: give `ebb receive` --disk-path %s=FILE", id, id)
	case file == "" || file == "." || file == ".." || strings.ContainsAny(file, "/\x00"):
		return "", fmt.Errorf("disk %s: %q is no name of an image in --disk-dir", id, file)
	}
	return filepath.Join(p.dir, file), nil
}

// incomingHost makes the machine for a VM that comes.
type incomingHost struct {
	name, control string
	console       consoleSpec
	paths         diskPaths
	log           *slog.Logger
	out           lateWriter

	place *control.Place
}

var _ migration.Host = (*incomingHost)(nil)

// run waits for a VM and stays until its guest ends.
func (h *incomingHost) run(ctx context.Context, l net.Listener) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	came := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			cancel(fmt.Errorf("ended by a signal (%v) before a VM came", s))
		case <-came:
			return
		}
		endNow(signals, came, func() {}) // a disk may hang that a VM which comes is to have
	}()
	tell("waiting for a VM at tcp:%s", l.Addr())
	in, err := migration.Receive(waiting, l, migration.ReceiveOptions{
		Host: h, Log: h.log,
		Coming: func(name string, from net.Addr) { tell("%s comes from %s", name, from) },
	})
	close(came)
	defer func() {
		if h.place != nil {
			h.place.Release()
		}
	}()
	if in == nil {
		if waiting.Err() != nil {
			return context.Cause(waiting)
		}
		return err
	}
	vm := in.(*incoming)
	defer vm.Close()
	if errors.Is(err, migration.ErrUncommitted) {
		if err := vm.Uncommitted(oneLine(err)); err != nil {
			h.log.Warn("the images' locks stay here", "err", err)
		}
		tell("%v: it stands here; look at the source, and only if it does not run there and has not since: `ebb resume %s --force`", oneLine(err), h.place.Name())
	} else {
		tell("%s runs here", h.place.Name())
	}
	return vm.follow(signals)
}

// Prepare implements migration.Host.
func (h *incomingHost) Prepare(name string, memory []ram.Region, from json.RawMessage) (_ migration.Incoming, err error) {
	if h.name != "" {
		name = h.name
	}
	if !control.ValidName(name) {
		return nil, fmt.Errorf("%.80q is no name for a VM: give `ebb receive` another with --name", name)
	}
	place, err := control.Claim(name, h.control)
	if err != nil {
		return nil, err
	}
	in, err := machine.NewIncoming(machine.Config{Console: &h.out, Log: h.log}, from, h.paths.find)
	if err != nil {
		place.Release()
		return nil, err
	}
	vm := &incoming{Incoming: in, host: h, name: name}
	var files []namedFile
	for _, d := range in.Disks() {
		files = append(files, namedFile{"disk " + d.ID, d.Path})
	}
	if vm.terminal, err = h.console.connect(&h.out, files); err != nil {
		err = errors.Join(err, in.Discard())
		place.Release()
		return nil, err
	}
	h.place = place
	vm.server = place.Serve(newControlled(in.Machine, name, in.Config()), h.log)
	return vm, nil
}

// incoming is a machine as package migration sees it, with what belongs to it.
type incoming struct {
	*machine.Incoming
	host     *incomingHost
	name     string
	terminal console
	server   *control.Server
}

var _ migration.Incoming = (*incoming)(nil)

func (v *incoming) Regions() []ram.Region { return regions(v.Memory()) }

// Run implements migration.Incoming.
func (v *incoming) Run() { v.Go() }

// Discard implements migration.Incoming.
func (v *incoming) Discard() {
	v.server.Finish("never came")
	if err := v.Incoming.Discard(); err != nil {
		v.host.log.Warn("giving a machine up whose guest didn't come", "err", err)
	}
	v.terminal.finish(false)
	v.host.place.Release()
	v.host.place = nil
}

// follow waits for the guest's end.
func (v *incoming) follow(signals <-chan os.Signal) error {
	if err := v.terminal.listen(v.Machine, v.host.log); err != nil {
		v.host.log.Warn("nothing can be typed", "err", err)
	}
	defer endOnSignals(signals, v.Machine, v.terminal.restore)()
	end, err := v.Wait()
	v.server.Finish(endText(end, err))
	v.terminal.finish(err == nil)
	return exitOf(end, err, v.host.log)
}
