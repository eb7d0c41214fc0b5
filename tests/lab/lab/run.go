package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/lab/wire"
)

// Run starts a lab, runs argv in it with the given standard streams (nil: empty, or discarded) and returns its exit code:
// 128 + n if signal n ended it, 127 if there is no such command. If stdin is a terminal it is put into raw mode and
// the command gets a terminal too, so that a person can use it.
//
// An error means that the lab, not the command, failed; the code is then -1. That includes a lab that went away
// without reporting the command's end, however cleanly, the deadline, and a cancelled ctx. The error tells how far it
// came and ends with the last lines of the lab's kernel log. No process and no file is left behind in any case; a
// Read of stdin may still be waiting.
func Run(ctx context.Context, o Options, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if len(argv) == 0 {
		return -1, errors.New("lab: no command given")
	}
	if err := Available(); err != nil {
		return -1, fmt.Errorf("lab: %w", err)
	}
	if err := o.setDefaults(); err != nil {
		return -1, fmt.Errorf("lab: %w", err)
	}
	if o.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Deadline, fmt.Errorf("the deadline of %v has passed", o.Deadline))
		defer cancel()
	}
	for boots := 1; ; boots++ {
		code, err := runOnce(ctx, o, argv, streams{stdin, stdout, stderr})
		if !errors.Is(err, errNeverReady) || boots == mostBoots {
			return code, err
		}
		fmt.Fprintln(os.Stderr, err, "(it is booted again)")
	}
}

// A lab whose agent is not ready in time has done nothing yet, and is booted again. It happens, seldom: all of its processors
// are busy with exceptions then, for ever. It may be the emulator's way with kernel code that is patched while
// others run it (agent/hold.go).
const mostBoots = 3

var bootLimit = 2 * time.Minute // tests change it

var errNeverReady = errors.New("the lab was not ready")

// runOnce is Run with one boot. An errNeverReady has read nothing of the streams.
func runOnce(ctx context.Context, o Options, argv []string, std streams) (int, error) {
	started := time.Now()
	m, err := start(ctx, o)
	if err != nil && ctx.Err() != nil {
		return -1, fmt.Errorf("lab: %w while it was prepared", context.Cause(ctx))
	}
	if err != nil {
		return -1, fmt.Errorf("lab: %w", err)
	}
	defer m.stop()
	s := newSession(m, o, argv, std)
	defer s.close()
	s.prepared, s.launched = m.launched.Sub(started), m.launched
	code, err := s.run(ctx)
	if err == nil {
		return code, nil
	}
	m.stop() // completes the log
	if tail := m.log.tail(30); tail != "" {
		err = fmt.Errorf("%w; the lab's kernel log ends with:\n%s", err, tail)
	}
	return -1, fmt.Errorf("lab: %w", err)
}

// machine is a running lab.
type machine struct {
	control, stdin *os.File // virtio-serial ports, our end
	log            *console
	qemu           *process
	servers        []*process // virtio-fs
	modules        string     // of the lab's kernel
	launched       time.Time
	closers        []func()
}

// start prepares everything and launches QEMU.
func start(ctx context.Context, o Options) (_ *machine, err error) {
	dir, err := guest.BuildDir()
	if err != nil {
		return nil, err
	}
	kernel, err := guest.FetchKernel(ctx, dir, cmp.Or(o.Kernel, guest.DefaultSeries))
	if err != nil {
		return nil, err
	}
	m := &machine{modules: kernel.Modules}
	defer func() {
		if err != nil {
			m.stop()
		}
	}()
	q := &qemu{options: o, kernel: kernel}
	defer q.closeFiles()
	if o.Cable != nil {
		o.Modules = append(o.Modules[:len(o.Modules):len(o.Modules)], "virtio_net")
	}
	if q.initrd, err = initrd(ctx, dir, kernel, o.Modules); err != nil {
		return nil, err
	}
	if o.ScratchGiB > 0 {
		if q.scratch, err = scratchDrive(ctx, int64(o.ScratchGiB)<<30); err != nil {
			return nil, err
		}
	}
	shares := append([]string{"/"}, o.Shares...)
	for i, dir := range shares {
		tag := wire.RootTag
		if i > 0 {
			tag = wire.ShareTag(i - 1)
		}
		server, socket, err := serveFiles(dir, i > 0)
		if err != nil {
			return nil, err
		}
		m.servers = append(m.servers, server)
		m.closers = append(m.closers, server.kill)
		q.shares = append(q.shares, share{tag, socket})
	}
	var logEnd *os.File
	for _, end := range []**os.File{&m.control, &m.stdin, &logEnd} {
		ours, theirs, err := socketPair()
		if err != nil {
			return nil, err
		}
		*end = ours
		m.closers = append(m.closers, func() { ours.Close() })
		q.ports = append(q.ports, theirs)
	}
	m.log = newConsole(logEnd, o.Log)
	m.launched = time.Now()
	if m.qemu, err = q.start(); err != nil {
		return nil, err
	}
	for _, server := range m.servers {
		go func() { // without its files the lab would hang
			<-server.done
			m.qemu.kill()
		}()
	}
	return m, nil
}

// complaints are what QEMU and the file servers had to say, if they have ended.
func (m *machine) complaints() string {
	var all []string
	for _, p := range append([]*process{m.qemu}, m.servers...) {
		if text := p.complaint(); text != "" {
			all = append(all, text)
		}
	}
	return strings.Join(all, "; ")
}

// stop ends the lab at once. It may be called several times.
func (m *machine) stop() {
	if m.qemu != nil {
		m.qemu.kill()
		m.log.wait()
	}
	for _, f := range m.closers {
		f()
	}
	m.closers = nil
}

// resolved are shares, which are absolute, without symbolic links: the lab sees none in mount points.
func resolved(dirs []string) ([]string, error) {
	var out []string
	for _, d := range dirs {
		real, err := filepath.EvalSymlinks(d)
		if err != nil {
			return nil, fmt.Errorf("share %s: %w", d, err)
		}
		out = append(out, real)
	}
	return out, nil
}
