// Package machine is one virtual machine: guest memory, vCPUs, interrupts, the
// PCI bus and the few other devices of a PC, from a kernel file to the guest's
// end.
//
//	machine    lifecycle, vCPU loop, interrupts, PCI bus, CPUID
//	 ├ memory  guest RAM
//	 ├ boot    kernel file formats and boot protocols
//	 ├ acpi    tables
//	 ├ chipset serial port, clock, power management, reset, pvpanic
//	 └ bus     who answers at which address
//
// Only this package uses KVM. Disks are package blk's, on package virtio's
// transport, and their I/O is package aio's.
package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/boot"
)

// End is how a guest ended.
type End uint8

// The ends of a guest.
const (
	PoweredOff End = iota + 1 // by ACPI
	Reset                     // by ACPI, the 8042, CF9 or a triple fault
	Panicked                  // its kernel said so through pvpanic
	Stopped                   // Stop was called
	Migrated                  // it goes on somewhere else
)

func (e End) String() string {
	return [...]string{"failed", "powered off", "reset", "panicked", "stopped", "migrated"}[e]
}

// Machine is a virtual machine. Its methods may be called from any goroutine,
// unless they say otherwise.
type Machine struct {
	cfg    Config
	kvm    *kvm.System
	kernel *boot.Kernel // nil: the guest came from another host, and can't boot again
	linux  bool         // the kernel certainly is Linux
	engine *aio.Engine
	cpuids [][]kvm.CPUIDEntry // what each vCPU is given, if the guest comes from another host; else nil. Set before Run

	console consoleWriter

	pausing  turn                  // one Pause or Resume at a time; taken before mu
	plugging sync.Mutex            // while groups and the disks in them change, which is never long; taken before mu
	groups   map[string]*aio.Group // by name; guarded by plugging, but for New

	mu         sync.Mutex // guards what follows; never held while waiting
	disks      []*disk    // those given at start first, in that order
	adding     []*disk    // those that AddDisk opens
	hw         *hardware  // nil before Run and after
	leaving    *hardware  // the last hw, while it is taken apart
	built      *hardware  // for the first guest, if that comes from another host
	out        *Outgoing  // a migration to another host, while there is one: it looks at the memory of hw or leaving
	held       reasons    // why the guest stands; outlives resets
	cancelStop func()     // ends the pause for a disk's failure before the disks do; nil: none is under way
	resuming   int        // calls of Resume that wait for pausing: a failure needn't stop the guest before them
	stopping   bool
	ending     bool      // the guest is over and doesn't come again
	changed    sync.Cond // hw or leaving changed, stopping was set, or a migration came to an end
}

// ErrNotRunning is returned when there is no guest to act on.
var ErrNotRunning = errors.New("the guest is not running")

// New checks the configuration and takes what the machine needs: /dev/kvm, the
// kernel file, the locked disk images. An error is one sentence that says what
// is wrong and what to do; nothing was created or changed. The caller closes the
// machine.
func New(cfg Config) (*Machine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m := newMachine(cfg)
	if err := m.take(); err != nil {
		m.Close()
		return nil, err
	}
	// vCPUs and the engine sit in system calls on threads of their own; the rest
	// of the program must not wait for them to come back.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), cfg.CPUs+2+aio.Processors))
	return m, nil
}

func newMachine(cfg Config) *Machine {
	m := &Machine{cfg: cfg, console: consoleWriter{cfg.Console, make(turn, 1)}, pausing: make(turn, 1), held: reasons{}}
	m.changed.L = &m.mu
	return m
}

// turn is a mutex that can be waited for until a context ends, and is not had after that, be it free: whoever gave up
// must not come after those who did not. It holds an element while somebody has it.
type turn chan struct{}

func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		if ctx.Err() == nil {
			return nil
		}
		t.unlock()
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

func (t turn) unlock() { <-t }

// take opens everything a machine needs, whatever the guest does.
func (m *Machine) take() (err error) {
	cfg := &m.cfg
	if m.kernel, err = boot.Open(cfg.Kernel); err != nil {
		return fmt.Errorf("--kernel %w; give a kernel file, such as one in /boot", err)
	}
	if cfg.Initrd != "" {
		if err = boot.CheckInitrd(cfg.Initrd); err != nil {
			return fmt.Errorf("--initrd %w; give an initramfs file, or leave the option out", err)
		}
	}
	for _, c := range cfg.Disks {
		d := m.newDisk(c, onBus0)
		if err := d.open(context.Background()); err != nil {
			return fmt.Errorf("--disk %s: %w", c.ID, err)
		}
		m.disks = append(m.disks, d)
	}
	if m.engine, err = aio.New(aio.Config{Engine: cfg.AIO, MaxCapacity: cfg.AIOMax, Log: cfg.Log}); err != nil {
		return fmt.Errorf("--aio %v: %w", cfg.AIO, err)
	}
	if err := m.joinGroups(); err != nil {
		return err
	}
	if m.kvm, err = openKVM(); err != nil {
		return err
	}
	if m.linux = m.kernel.Linux(); m.linux {
		return requireLinux(m.kvm)
	}
	return nil
}

// joinGroups sets every disk's group, and checks their options now rather than when the guest starts.
func (m *Machine) joinGroups() error {
	for _, d := range m.disks {
		if err := m.joinGroup(d); err != nil {
			return fmt.Errorf("--disk %s: %w", d.cfg.ID, err)
		}
		if _, err := m.newDevice(d); err != nil {
			return err
		}
	}
	return nil
}

// Run starts the guest and returns when it has ended, once everything it wrote
// to its console has been passed on. A guest's reset starts it again, unless
// NoReboot is set; that waits a second at most for who reads its console. Call it once.
func (m *Machine) Run() (End, error) {
	defer m.Stop() // no guest comes any more: who waits for one gives up
	for {
		end, err := m.runOnce()
		if err != nil || !m.bootsAgain(end) {
			return end, err
		}
		m.cfg.Log.Info("the guest resets")
	}
}

func (m *Machine) runOnce() (End, error) {
	hw := m.built
	m.built = nil
	arrives := hw != nil
	if !arrives {
		var err error
		if hw, err = newHardware(m); err != nil {
			return 0, err
		}
	}
	m.mu.Lock() // until others find the disks in hw
	if !arrives {
		if err := hw.preset(m.disks); err != nil {
			hw.ended(0, err)
		}
	}
	if m.stopping {
		hw.ended(Stopped, nil)
	}
	m.hw = hw
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	written := hw.start(ctx, &m.console, m.held.causes())
	m.changed.Broadcast()
	m.mu.Unlock()

	<-hw.over
	m.mu.Lock()
	m.hw, m.leaving, m.ending = nil, hw, !m.bootsAgain(hw.end)
	// A migration under way comes to its end first: it looks at the guest's memory, or writes to it, and has the images' locks,
	// without which the guest must not boot again.
	for m.moving() {
		m.changed.Wait()
	}
	m.mu.Unlock()
	err := hw.close()
	m.mu.Lock()
	m.leaving = nil
	m.changed.Broadcast()
	m.mu.Unlock()
	m.finishConsole(written, hw.end)
	return hw.end, errors.Join(hw.err, err)
}

// Pause stops the guest: when it returns nil no vCPU runs and no disk request is
// in flight. If ctx ends first, because a disk doesn't answer, the guest goes on
// and the error says so.
func (m *Machine) Pause(ctx context.Context) error {
	if err := m.failing(); err != nil {
		return err
	}
	if err := m.pausing.lock(ctx); err != nil {
		return fmt.Errorf("pausing: %w", err)
	}
	defer m.pausing.unlock()
	m.mu.Lock()
	hw, moving, stands := m.hw, m.moving(), len(m.held) > 0
	if hw != nil && !moving && !stands {
		m.held[byUser] = ""
	}
	m.mu.Unlock()
	switch {
	case moving:
		return ErrMigrating
	case hw == nil:
		return ErrNotRunning
	case stands:
		return nil
	}
	return m.pause(ctx, hw, byUser)
}

// failing is an error if a disk's failure is stopping the guest. That may last for as long as another disk hangs.
func (m *Machine) failing() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancelStop == nil {
		return nil
	}
	return fmt.Errorf("it is paused: %s", m.held[byFailure])
}

// pause stops a guest that ran, for a cause that m.held has; not if it fails. Preconditions: m.pausing is held.
func (m *Machine) pause(ctx context.Context, hw *hardware, c cause) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a guest that ends meanwhile is waited for no longer
		select {
		case <-hw.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := hw.pause(ctx, c)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case closed(hw.over): // it came to its end first
		err = ErrNotRunning
	case err != nil:
		err = fmt.Errorf("pausing: %w", err)
	default:
		return nil
	}
	delete(m.held, c)
	if m.hw != nil { // perhaps another, after a reset
		m.hw.gate.release(c)
	}
	return err
}

// moving reports whether the guest is on its way from or to another host. m.mu is held.
func (m *Machine) moving() bool {
	_, arriving := m.held[notArrived]
	return arriving || m.out != nil
}

// Resume lets a paused guest go on. Not one of which nobody knows whether it runs at the other
// side of a migration: that takes ResumeForced.
func (m *Machine) Resume() error { return m.resume(false) }

// ResumeForced is Resume also for a guest that a migration has left standing, whose user has made
// sure that it doesn't run at the other side, and has not since. It fails if the images are not to be had, or were written since.
func (m *Machine) ResumeForced() error { return m.resume(true) }

func (m *Machine) resume(force bool) error {
	m.mu.Lock()
	if m.moving() {
		m.mu.Unlock()
		return ErrMigrating
	}
	m.resuming++
	if m.cancelStop != nil {
		m.cancelStop()
	}
	m.mu.Unlock()
	err := m.pausing.lock(context.Background())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resuming--
	if err != nil {
		return err
	}
	defer m.pausing.unlock()
	elsewhere, away := m.held[notHere]
	switch {
	case m.hw == nil:
		return ErrNotRunning
	case m.moving():
		return ErrMigrating
	case away && !force:
		return fmt.Errorf("%s; only if it doesn't run on the other side, and has not run there since, resume it by force", elsewhere)
	case away:
		if err := m.regain(); err != nil {
			return err
		}
	}
	m.hw.resume(m.held.causes()) // the disks in any case: what failed need not have stopped the guest, because this was to come
	clear(m.held)
	return nil
}

// regain takes the images back that a migration has given away, all or none. m.mu is held.
func (m *Machine) regain() error {
	var taken []func() error
	for _, d := range m.disks {
		undo, err := d.image.Regain()
		if err != nil {
			err = fmt.Errorf("disk %s: %w", d.cfg.ID, err)
			for _, undo := range taken { // they may be on the other side yet
				err = errors.Join(err, undo())
			}
			return err
		}
		taken = append(taken, undo)
	}
	for _, a := range m.hw.devices() {
		a.device.SetDrainWindow(aio.Unlimited)
	}
	return nil
}

// Stop ends the guest at once, as pulling the plug would. Run returns Stopped.
func (m *Machine) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	if m.hw != nil {
		m.hw.ended(Stopped, nil)
	}
	m.changed.Broadcast()
}

// PowerButton asks the guest to shut itself down. Not while it stands for a migration, whose state may not have it.
func (m *Machine) PowerButton() error {
	m.mu.Lock() // which saving the devices takes, too
	defer m.mu.Unlock()
	switch {
	case m.hw == nil:
		return ErrNotRunning
	case m.hw.gate.holds(byMigration | notArrived):
		return ErrMigrating
	}
	m.hw.power.PressButton()
	return nil
}

// DiskStats is what one disk has done.
type DiskStats struct {
	ID   string
	Lost bool // writes of the guest's (blk.Image.Lost)
	aio.PortStats
}

// DiskStats returns the engine's counters, disk by disk: those given at start in their
// order, then added ones in theirs. Those of one that no driver uses, and whose requests
// are all done, are zero, without a bound on its window. Lost is the image's, whoever uses it.
func (m *Machine) DiskStats() []DiskStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	hw := m.hw
	if hw == nil {
		hw = m.leaving
	}
	stats := make([]DiskStats, len(m.disks))
	for i, d := range m.disks {
		stats[i] = DiskStats{ID: d.cfg.ID, Lost: d.image.Lost(), PortStats: aio.NoStats()}
		if hw == nil {
			continue
		}
		if a := hw.attached(d); a != nil {
			if s, ok := a.device.Stats(); ok {
				stats[i].PortStats = s
			}
		}
	}
	return stats
}

// Input types p on the guest's console. It waits until the guest listens and
// has taken everything, over resets if need be, and fails when Stop was called
// or Run has returned for good.
func (m *Machine) Input(p []byte) error {
	for {
		m.mu.Lock()
		for m.hw == nil && !m.stopping {
			m.changed.Wait()
		}
		hw := m.hw
		m.mu.Unlock()
		if hw == nil {
			return ErrNotRunning
		}
		n, ok := hw.serial.Input(p)
		if p = p[n:]; ok {
			return nil
		}
	}
}

// Close gives back what New took. Preconditions: Run has returned or was never
// called.
func (m *Machine) Close() error {
	m.Stop() // wakes a waiting Input
	var errs []error
	if m.engine != nil {
		errs = append(errs, m.engine.Close())
	}
	m.mu.Lock()
	for _, d := range m.disks {
		errs = append(errs, d.image.Close())
	}
	m.disks = nil
	m.mu.Unlock()
	if m.kvm != nil {
		errs = append(errs, m.kvm.Close())
	}
	if m.kernel != nil {
		errs = append(errs, m.kernel.Close())
	}
	return errors.Join(errs...)
}
