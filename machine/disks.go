package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
)

// disk is one disk of the machine, whatever hardware it is in at the moment.
type disk struct {
	cfg   Disk
	image *blk.Image
	slot  int // hotplug slot, counted from 0; onBus0: given at start
	group *aio.Group

	// unwanted: a RemoveDisk waits for it. New hardware is built without it.
	// Machine.mu guards it.
	unwanted bool

	resizes int // under way, also those that nobody waits for any more; Machine.mu guards it
}

const onBus0 = -1

// openImage is a variable for a test with storage that doesn't answer.
var openImage = blk.OpenImage

// newDisk makes a disk, without its image.
func (m *Machine) newDisk(cfg Disk, slot int) *disk {
	if cfg.Queues == 0 {
		cfg.Queues = m.cfg.CPUs
	}
	return &disk{cfg: cfg, slot: slot}
}

// open opens and locks the image. Storage that doesn't answer can't be interrupted: if ctx ends first open returns, and
// what is opened later is closed at once.
func (d *disk) open(ctx context.Context) error {
	type result struct {
		image *blk.Image
		err   error
	}
	opened, open := make(chan result), openImage
	go func() {
		image, err := open(d.cfg.Path, blk.ImageOptions{ReadOnly: d.cfg.ReadOnly, Direct: d.cfg.Direct, Raw: d.cfg.Raw})
		select {
		case opened <- result{image, err}:
		case <-ctx.Done():
			if err == nil {
				image.Close() //nolint:errcheck // nothing was written
			}
		}
	}()
	select {
	case r := <-opened:
		d.image = r.image
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("the storage of disk image %s doesn't answer: %w", d.cfg.Path, context.Cause(ctx))
	}
}

// newDevice makes the device of a disk.
func (m *Machine) newDevice(d *disk) (*blk.Device, error) {
	return blk.New(blk.Config{
		ID: d.cfg.ID, Serial: d.cfg.Serial, Image: d.image, Engine: m.engine,
		Queues: d.cfg.Queues, QueueSize: d.cfg.QueueSize, Log: m.cfg.Log,
		Weight: d.cfg.Weight, Limits: d.ownLimits(), Group: d.group,
		Errors: d.cfg.Errors, Stop: func(f aio.Failure, retried func() bool) { go m.stopOnFailure(d, f, retried) },
	})
}

// findDisk returns the disk with an id, nil if there is none. m.mu is held.
func (m *Machine) findDisk(id string) *disk {
	for _, d := range m.disks {
		if d.cfg.ID == id {
			return d
		}
	}
	return nil
}

// taken reports whether a disk, or one that is being added, is of that kind. m.mu is held.
func (m *Machine) taken(of func(*disk) bool) bool {
	return slices.ContainsFunc(m.disks, of) || slices.ContainsFunc(m.adding, of)
}

func (m *Machine) takenID(id string) bool {
	return m.taken(func(d *disk) bool { return d.cfg.ID == id })
}

// freeSlot returns a hotplug slot without a disk. m.mu is held.
func (m *Machine) freeSlot() (int, error) {
	for i := range m.cfg.HotplugSlots {
		if !m.taken(func(d *disk) bool { return d.slot == i }) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("none of %d hotplug slots is free; give `ebb run` more with --hotplug-slots (at most %d), or remove an added disk first",
		m.cfg.HotplugSlots, MaxHotplugSlots)
}

// AddDisk gives the machine another disk and plugs it into the running guest, which
// finds it by PCI Express hotplug. A guest that isn't there yet, or resets just now,
// finds it when it boots; it keeps its slot, and so its place in the guest, until
// RemoveDisk. Without an id it gets the first of DiskName's that is free. An error is one sentence, and then nothing
// has changed. It doesn't wait for the guest, and for storage until ctx ends; meanwhile all else goes on, but a migration. Any goroutine.
func (m *Machine) AddDisk(ctx context.Context, cfg Disk) (id string, err error) {
	d, err := m.reserve(cfg)
	if err == nil {
		defer m.unreserve(d)
		if err = d.open(ctx); err == nil {
			err = m.join(d)
		}
	}
	if err != nil {
		return "", fmt.Errorf("disk %s can't be added: %w", d.cfg.ID, err)
	}
	return d.cfg.ID, nil
}

// reserve makes a disk that is to be added, so that its id and slot stay free. It returns one with an error, too.
func (m *Machine) reserve(cfg Disk) (*disk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; cfg.ID == ""; i++ {
		if id := DiskName(i); !m.takenID(id) {
			cfg.ID = id
		}
	}
	slot, err := m.freeSlot()
	d := m.newDisk(cfg, slot)
	switch {
	case m.stopping:
		err = ErrNotRunning
	case m.moving():
		err = ErrMigrating
	case m.takenID(cfg.ID):
		err = errors.New("there is a disk with this id; give the new one another id")
	}
	if err == nil {
		m.adding = append(m.adding, d)
	}
	return d, err
}

func (m *Machine) unreserve(d *disk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.adding = slices.DeleteFunc(m.adding, func(e *disk) bool { return e == d })
}

// join makes a disk one of the machine's, or closes its image.
func (m *Machine) join(d *disk) error {
	m.plugging.Lock()
	err := m.joinGroup(d)
	if err == nil {
		_, err = m.newDevice(d) // it checks the options
	}
	if err == nil {
		err = m.plug(d)
	}
	if err != nil {
		m.leaveGroup(d)
	}
	m.plugging.Unlock()
	if err != nil {
		return errors.Join(err, d.image.Close())
	}
	return nil
}

func (m *Machine) plug(d *disk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return ErrNotRunning
	}
	m.disks = append(m.disks, d)
	if m.hw != nil {
		m.hw.slots[d.slot].insert(d)
	}
	return nil
}

// RemoveDisk asks the guest to let go of a disk that AddDisk added, waits until it
// has, and until nothing is in flight, and closes the image, which ends its lock. If
// ctx ends first the disk stays, and the error says what was waited for; a later call
// may try again. A guest that is paused is not waited for: PausedError; nor is a ResizeDisk. A guest that lets go later, Linux takes five seconds, leaves the slot
// off: then the disk waits there for that call, or for the guest to turn the slot on.
// Any goroutine.
func (m *Machine) RemoveDisk(ctx context.Context, id string) error {
	d, err := m.disown(id)
	if err != nil {
		return err
	}
	// Whoever waits for hardware waits for this condition.
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.changed.Broadcast()
	})()
	for {
		hw, err := m.removed(ctx, d)
		if err != nil {
			return err
		}
		if hw == nil {
			m.plugging.Lock()
			m.leaveGroup(d)
			m.plugging.Unlock()
			if err := d.image.Close(); err != nil {
				return fmt.Errorf("disk %s is removed, but closing its image: %w", id, err)
			}
			return nil
		}
		s := hw.slots[d.slot]
		s.release(d, true)
		hw.awaitRelease(ctx, s, d)
	}
}

// disown marks a disk as one that is to go.
func (m *Machine) disown(id string) (*disk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.findDisk(id)
	switch {
	case m.stopping:
		return nil, ErrNotRunning
	case m.moving():
		return nil, ErrMigrating
	case d == nil:
		return nil, fmt.Errorf("there is no disk %s", id)
	case d.slot == onBus0:
		return nil, fmt.Errorf("disk %s was given at start and can't be removed; only added disks are in a hotplug slot", id)
	case d.unwanted:
		return nil, fmt.Errorf("disk %s is being removed already", id)
	case d.resizes > 0:
		return nil, fmt.Errorf("disk %s is being resized; wait until its storage has answered", id)
	case len(m.held) > 0 && m.hw != nil && m.hw.attached(d) != nil:
		return nil, &PausedError{m.held.first()}
	}
	d.unwanted = true
	return d, nil
}

// removed takes d off the machine if no hardware has it, and returns nil and nil; then
// it is the caller's alone. Else it returns the hardware that has it, or an error if
// that is not to be waited for any longer. Between two hardwares it waits for the next one: the old one may have requests
// in flight, as long as it is not taken apart.
func (m *Machine) removed(ctx context.Context, d *disk) (*hardware, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.hw == nil && m.leaving != nil && !m.stopping && ctx.Err() == nil {
		m.changed.Wait()
	}
	held := m.leaving != nil
	if m.hw != nil {
		held, _ = m.hw.slots[d.slot].holds(d)
	}
	switch {
	case m.stopping:
		return nil, ErrNotRunning
	case !held:
		m.disks = slices.DeleteFunc(m.disks, func(e *disk) bool { return e == d })
		return nil, nil
	case ctx.Err() != nil:
		d.unwanted = false
		err := errors.New("the guest is resetting")
		if m.hw != nil {
			m.hw.slots[d.slot].release(d, false)
			err = m.hw.slots[d.slot].why()
		}
		return nil, fmt.Errorf("disk %s is not removed: %w (%w)", d.cfg.ID, err, context.Cause(ctx))
	}
	return m.hw, nil
}

// awaitRelease returns when d is no longer in its slot, or nobody can wait for that.
func (h *hardware) awaitRelease(ctx context.Context, s *slot, d *disk) {
	for {
		held, changed := s.holds(d)
		if !held {
			return
		}
		select {
		case <-changed:
		case <-h.over:
			return
		case <-ctx.Done():
			return
		}
	}
}
