package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/machine/plain"
)

// Incoming is a machine whose guest comes from somewhere else. Until Run it stands, as one that
// is paused.
type Incoming struct {
	*Machine
	hw    *hardware
	files bootFiles
	ended chan struct{} // Machine.Run has returned
	end   End
	err   error
}

// NewIncoming makes a machine of a description that another made (Outgoing.Describe), which
// may say anything at all. path returns the image to open for a disk, of which the
// description has the name without directory, or refuses. Nothing is changed on any disk. cfg
// has the console and the log. The caller closes it, after Discard or Wait.
func NewIncoming(cfg Config, from json.RawMessage, path func(id, file string) (string, error)) (*Incoming, error) {
	var d description
	if err := json.Unmarshal(from, &d); err != nil {
		return nil, fmt.Errorf("the source describes its machine in a way that can't be read (%w)", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Memory, cfg.CPUs, cfg.HotplugSlots, cfg.AIO, cfg.AIOMax = d.Memory, d.CPUs, d.HotplugSlots, d.AIO, d.AIOMax
	cfg.Cmdline, cfg.NoReboot = d.Cmdline, d.NoReboot
	var added []Disk
	for _, k := range d.Disks {
		p, err := path(k.ID, k.File)
		if err != nil {
			return nil, err
		}
		disk := Disk{
			ID: k.ID, Path: p, Serial: k.Serial, ReadOnly: k.ReadOnly, Direct: k.Direct, Queues: k.Queues, QueueSize: k.QueueSize,
			Weight: k.Weight, Limits: k.Limits, Group: k.Group, Errors: k.Errors,
		}
		if k.Slot == onBus0 {
			cfg.Disks = append(cfg.Disks, disk)
		} else {
			added = append(added, disk)
		}
	}
	cfg.Disks = append(cfg.Disks, added...)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Disks = cfg.Disks[:len(cfg.Disks)-len(added)]
	if err := d.check(); err != nil {
		return nil, err
	}
	m := newMachine(cfg)
	m.linux = d.Linux
	in := &Incoming{Machine: m, ended: make(chan struct{})}
	if err := in.take(d, append(cfg.Disks[:len(cfg.Disks):len(cfg.Disks)], added...)); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// take opens everything and builds the hardware.
func (in *Incoming) take(d description, disks []Disk) (err error) {
	m := in.Machine
	for i, cfg := range disks {
		image, err := blk.OpenIncoming(cfg.Path, blk.ImageOptions{ReadOnly: cfg.ReadOnly, Direct: cfg.Direct})
		if err != nil {
			return fmt.Errorf("disk %s: %w", cfg.ID, err)
		}
		m.disks = append(m.disks, &disk{cfg: cfg, image: image, slot: d.Disks[i].Slot})
		if err := image.CheckIncoming(d.Disks[i].Image); err != nil {
			return fmt.Errorf("disk %s: %w", cfg.ID, err)
		}
	}
	if m.kvm, err = openKVM(); err != nil {
		return err
	}
	if d.Linux {
		if err := requireLinux(m.kvm); err != nil {
			return err
		}
	}
	host, err := hostTraits(m.kvm)
	if err != nil {
		return err
	}
	if err := compatible(d.Traits, host); err != nil {
		return err
	}
	m.cpuids = d.Traits.CPUID
	if m.engine, err = aio.New(aio.Config{Engine: m.cfg.AIO, MaxCapacity: m.cfg.AIOMax, Log: m.cfg.Log}); err != nil {
		return err
	}
	if err := m.joinGroups(); err != nil {
		return err
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), m.cfg.CPUs+2+aio.Processors))
	if in.hw, err = newHardware(m); err != nil {
		return err
	}
	m.engine.Expect(in.hw.demand())
	if err := in.hw.rehearse(); err != nil {
		return errors.Join(err, in.hw.close())
	}
	m.built, m.held[notArrived] = in.hw, "its guest has not come yet"
	go func() {
		in.end, in.err = m.Run()
		close(in.ended)
	}()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.hw == nil && !m.ending {
		m.changed.Wait()
	}
	return nil
}

// Config returns what the machine was made of.
func (in *Incoming) Config() Config { return in.cfg }

// Memory returns the guest's memory, all zeroes at first.
func (in *Incoming) Memory() []memory.Region { return in.hw.ram.Regions() }

// Describe says what Outgoing.Check wants to know.
func (in *Incoming) Describe() json.RawMessage {
	a := arrivalDescription{Disks: map[string]blk.Identity{}}
	for _, d := range in.disks {
		a.Disks[d.cfg.ID] = d.image.Identity()
	}
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}

// Reserve takes the reservations of all images, which the source has offered.
func (in *Incoming) Reserve() error { return in.onImages((*blk.Image).TakeReservation) }

// TakeOver makes the images this side's, and ready for I/O.
func (in *Incoming) TakeOver() error { return in.onImages((*blk.Image).TakeOver) }

// GiveBack undoes TakeOver, if that was done. Instead of running.
func (in *Incoming) GiveBack() error { return in.onImages((*blk.Image).ReleaseOwner) }

// onImages does something with all images.
func (in *Incoming) onImages(f func(*blk.Image) error) error {
	return together(len(in.disks), func(i int) error {
		if err := f(in.disks[i].image); err != nil {
			return fmt.Errorf("disk %s: %w", in.disks[i].cfg.ID, err)
		}
		return nil
	})
}

// Prepare does what can be done before the rest comes, with what Outgoing.SaveAhead found. What the guest boots from
// (File) has come.
func (in *Incoming) Prepare(ahead json.RawMessage) error {
	var list []busState
	if err := json.Unmarshal(ahead, &list); err != nil {
		return err
	}
	if err := in.files.adopt(in.Machine); err != nil {
		return err
	}
	return in.hw.loadBus(list)
}

// Load loads a state that Outgoing.Save made, or anything at all. This host's CLOCK_REALTIME is ahead of the
// source's by as much. Memory is complete, the images are this side's, and Prepare was called. After an error the machine
// can only be discarded.
func (in *Incoming) Load(state []byte, ahead time.Duration) error {
	var s machineState
	if err := plain.Unmarshal(state, &s); err != nil {
		return err
	}
	s.KVM.Clocks.Realtime += int64(ahead)
	s.Devices.CMOS.Offset -= int64(ahead)
	loaded, err := in.hw.loadKVM(s.KVM, func() error {
		return errors.Join(in.loadGroups(s.Devices.Groups), in.hw.loadDevices(s.Devices, in.disks))
	})
	if err != nil {
		return err
	}
	for _, line := range loaded.Refused {
		in.cfg.Log.Warn("not all of the guest's state is possible here", "what", line)
	}
	if loaded.Backwards > 0 {
		in.cfg.Log.Warn("this host's clock is behind the source's, so that the guest's clocks lose as much", "behind", loaded.Backwards)
	}
	in.hw.resumedDevices()
	return nil
}

// Unload undoes Load, which may be called again. Any number of times; preconditions: Load returned nil.
func (in *Incoming) Unload() { in.hw.unloadDevices() }

// Go lets the guest run. Preconditions: Load returned nil.
func (in *Incoming) Go() {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.held, notArrived)
	in.changed.Broadcast() // somebody may have stopped it just now
	in.hw.resume(notArrived)
	in.engine.Expect(0)
}

// Uncommitted keeps a loaded guest from running, because it may run at the source: which gets its
// images back then, if it asks for them. ResumeForced undoes it.
func (in *Incoming) Uncommitted(reason string) error {
	err := errors.Join(in.onImages((*blk.Image).ReleaseOwner), in.onImages((*blk.Image).OfferReservation))
	in.engine.Expect(0)
	in.mu.Lock() // from now on somebody may resume it
	defer in.mu.Unlock()
	delete(in.held, notArrived)
	in.held[notHere] = reason
	in.hw.gate.hold(notHere)
	in.hw.gate.release(notArrived)
	in.changed.Broadcast()
	return err
}

// Over is closed when somebody stops the machine.
func (in *Incoming) Over() <-chan struct{} { return in.hw.over }

// Discard ends a machine whose guest doesn't come. Nobody writes to its memory any more.
func (in *Incoming) Discard() error {
	in.mu.Lock()
	delete(in.held, notArrived)
	in.mu.Unlock()
	in.Stop() // broadcasts
	<-in.ended
	return errors.Join(in.err, in.Close())
}

// Close gives back what the machine has. Preconditions: it was discarded, or Wait has returned.
func (in *Incoming) Close() error { return errors.Join(in.Machine.Close(), in.files.close()) }

// Wait returns how the guest ended.
func (in *Incoming) Wait() (End, error) {
	<-in.ended
	return in.end, in.err
}
