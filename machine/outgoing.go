package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/machine/plain"
)

// ErrMigrating is returned for what can't be done while the guest is migrated.
var ErrMigrating = errors.New("the guest is being migrated")

// Outgoing is a running machine whose guest is to go somewhere else. While there is one the
// machine is not paused, resumed, or given other disks, and a device that the guest plugs in by turning a slot off and on takes no requests. Its methods may be called from any
// goroutine, but no method twice at once.
type Outgoing struct {
	m     *Machine
	hw    *hardware
	disks []*attached

	bitmap [][]uint64 // scratch, by region
	manual bool       // the dirty log keeps what isn't cleared

	tracked   bool      // the dirty log is kept
	preferred preferred // by Track

	unthrottle func() // ends the throttle; nil: there is none
}

// BeginMigration begins it. Outgoing.End ends it, whatever came of it: a guest that has ended or left waits for that.
func (m *Machine) BeginMigration() (*Outgoing, error) {
	if err := m.failing(); err != nil {
		return nil, err
	}
	if err := m.pausing.lock(context.Background()); err != nil { // not beside a Pause
		return nil, err
	}
	defer m.pausing.unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.hw == nil:
		return nil, ErrNotRunning
	case m.moving():
		return nil, ErrMigrating
	case m.held[notHere] != "":
		return nil, fmt.Errorf("its images are not this side's: %s", m.held[notHere])
	case m.held.first() != "":
		return nil, fmt.Errorf("it is paused: %s", m.held.first())
	case len(m.held) > 0:
		return nil, errors.New("it is paused; resume it before")
	}
	for _, d := range m.adding { // its storage may never answer: nobody waits for it here
		return nil, fmt.Errorf("disk %s is being added; wait until it is, or give it up", d.cfg.ID)
	}
	for _, d := range m.disks {
		switch {
		case d.resizes > 0:
			return nil, fmt.Errorf("disk %s is being resized; wait until its storage has answered", d.cfg.ID)
		case d.unwanted:
			return nil, fmt.Errorf("disk %s is being removed; wait until it is gone", d.cfg.ID)
		case m.hw.attached(d) == nil:
			return nil, fmt.Errorf("disk %s is in hotplug slot %d, which the guest has not turned on; wait until it has, or remove the disk", d.cfg.ID, d.slot+1)
		}
	}
	m.hw.moving.Store(true) // before devices: whatever is made from now on and not among them is held
	o := &Outgoing{m: m, hw: m.hw, disks: m.hw.devices()}
	for _, a := range o.disks {
		a.device.SetDrainWindow(aio.Unlimited) // even if it was made just now
	}
	for _, g := range m.hw.ram.Regions() {
		o.bitmap = append(o.bitmap, make([]uint64, g.Words()))
	}
	m.out = o
	return o, nil
}

// Migrating reports whether its guest is on its way from or to another host.
func (m *Machine) Migrating() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moving()
}

// End ends the migration: the machine is as before. Nobody looks at its memory any more.
func (o *Outgoing) End() {
	o.Throttle(0)
	if o.tracked && !closed(o.hw.over) { // nobody knows whether the guest left
		if err := o.Track(false); err != nil {
			o.m.cfg.Log.Warn("the dirty log can't be ended", "err", err)
		}
	}
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	o.m.out = nil
	o.hw.moving.Store(false) // before devices, as in BeginMigration
	if _, away := o.m.held[notHere]; !away && !closed(o.hw.over) {
		for _, a := range o.hw.devices() {
			if !slices.Contains(o.disks, a) { // nobody else has opened it
				a.device.SetDrainWindow(aio.Unlimited)
			}
		}
	}
	o.m.changed.Broadcast()
}

// Memory returns the guest's memory.
func (o *Outgoing) Memory() []memory.Region { return o.hw.ram.Regions() }

// Describe says what the machine at the destination must be like. The guest stands for a moment.
func (o *Outgoing) Describe() (json.RawMessage, error) {
	o.Stop()
	traits, err := o.hw.cpuTraits()
	err = errors.Join(err, o.hw.checkNested())
	var s machineState
	s.KVM, _ = o.hw.saveKVM() // Save says what can't be saved
	o.Resume()
	if err != nil {
		return nil, err
	}
	plain.Marshal(s) // the first time takes longer, and is not to be in Save
	return json.Marshal(o.m.describe(traits))
}

// Check is given what the destination says of itself, and refuses what can't work.
// allowCached: the images' storage keeps no stale pages, whatever it looks like.
func (o *Outgoing) Check(answer json.RawMessage, allowCached bool) error {
	var a arrivalDescription
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("the destination describes itself in a way that can't be read (%w)", err)
	}
	for _, d := range o.disks {
		there, ok := a.Disks[d.disk.cfg.ID]
		if !ok {
			return fmt.Errorf("the destination says nothing of disk %s", d.disk.cfg.ID)
		}
		if !allowCached && !blk.CachesSafely(d.disk.image.Identity(), there) {
			return fmt.Errorf("disk %s goes through the page caches of two hosts, and what one has cached the other may have changed: "+
				"give its --disk the key direct, or --allow-cached if its storage keeps them coherent", d.disk.cfg.ID)
		}
	}
	return nil
}

// Disks returns the disks' devices and images, in an order that doesn't change.
func (o *Outgoing) Disks() (list []OutgoingDisk) {
	for _, a := range o.disks {
		list = append(list, OutgoingDisk{a.disk.cfg.ID, a.device, a.disk.image, func() bool { return o.hw.attached(a.disk) != a }})
	}
	return list
}

// OutgoingDisk is one disk of it.
type OutgoingDisk struct {
	ID     string
	Device *blk.Device
	Image  *blk.Image

	replaced func() bool // Device isn't what the guest has of the disk
}

// Kept says that it can't migrate: requests of it failed and are kept until Machine.Resume, or the guest has turned its slot
// off, and perhaps on again, with a device that nobody drains. nil: it can.
func (d OutgoingDisk) Kept() error {
	if d.replaced() {
		return fmt.Errorf("the guest has turned off the slot of disk %s meanwhile; once it is on again, or the disk removed, migrate again", d.ID)
	}
	if s, ok := d.Device.Stats(); ok && s.Kept > 0 {
		return fmt.Errorf("disk %s has requests that failed and wait for `ebb resume`; resume it before", d.ID)
	}
	return nil
}

// Track begins to keep the dirty log, or ends it. Meanwhile the vCPUs and the engine come before the threads that copy memory, of the
// source and, where it is on the same host, of the destination: a guest should not be slow because it moves. The engine must not come after
// the vCPUs: one that polls its disks would take the processor that its answers need.
func (o *Outgoing) Track(on bool) error {
	o.preferred.end()
	o.tracked = on
	if on {
		o.preferred = prefer(o.guestThreads()...)
	}
	flags := uint32(0)
	if on {
		o.hw.ram.StartTracking()
		mask, err := o.hw.vm.CheckExtension(kvm.CapManualDirtyLogProtect2)
		if err != nil {
			return err
		}
		if mask := uint64(mask) & (kvm.DirtyLogManualProtect | kvm.DirtyLogInitiallySet); mask&kvm.DirtyLogManualProtect != 0 {
			if err := o.hw.vm.EnableCap(kvm.CapManualDirtyLogProtect2, mask); err != nil {
				return err
			}
			o.manual = true
		}
		flags = kvm.MemLogDirtyPages
	} else {
		o.hw.ram.StopTracking()
	}
	for slot, r := range o.hw.ram.Regions() {
		err := o.hw.vm.SetUserMemoryRegion(kvm.MemoryRegion{Slot: uint32(slot), Flags: flags, GuestPhysAddr: r.GPA, Size: uint64(len(r.Bytes)), Memory: r.Bytes})
		if err != nil {
			return err
		}
	}
	return nil
}

// guestThreads are those that the guest runs on: its vCPUs' and the engine's.
func (o *Outgoing) guestThreads() []int {
	threads := []int{o.m.engine.Thread()}
	for _, c := range o.hw.gate.cpus {
		threads = append(threads, int(c.thread.Load()))
	}
	return threads
}

// Written ORs into bitmap the pages of a region that the guest or a device has written.
func (o *Outgoing) Written(region int, bitmap []uint64) error {
	if err := o.hw.vm.GetDirtyLog(uint32(region), o.bitmap[region]); err != nil {
		return err
	}
	for i, w := range o.bitmap[region] {
		bitmap[i] |= w
	}
	o.hw.ram.CollectWritten(region, bitmap)
	return nil
}

// Clear takes pages off the log, of which the first is a multiple of 64. It may run on several
// goroutines, for different pages.
func (o *Outgoing) Clear(region int, first uint64, bitmap []uint64) error {
	if !o.manual {
		return nil // reading it did
	}
	pages := uint64(len(o.hw.ram.Regions()[region].Bytes)) / kvm.PageSize
	return o.hw.vm.ClearDirtyLog(uint32(region), first, uint32(min(uint64(len(bitmap))*64, pages-first)), bitmap)
}

// Stop returns when no vCPU runs.
func (o *Outgoing) Stop() {
	o.hw.gate.hold(byMigration)
	o.hw.gate.wait()
}

// Resume undoes Stop, and what Save has stopped.
func (o *Outgoing) Resume() {
	o.hw.serial.Let()
	o.hw.gate.release(byMigration)
}

// A throttled vCPU runs for throttlePeriod in one go, or, so that it doesn't stand for longer than longestNap, for less.
const (
	throttlePeriod = 10 * time.Millisecond
	longestNap     = 20 * time.Millisecond
)

// Throttle has the vCPUs stand still for so many percent of the time, 99 at most; 0 ends that.
func (o *Outgoing) Throttle(percent int) {
	if o.unthrottle != nil {
		o.unthrottle()
		o.unthrottle = nil
	}
	if percent == 0 {
		return
	}
	run, nap := throttlePeriod, throttlePeriod*time.Duration(percent)/time.Duration(100-percent)
	if nap > longestNap {
		run, nap = longestNap*time.Duration(100-percent)/time.Duration(percent), longestNap
	}
	ctx, cancel := context.WithCancel(context.Background())
	var throttling sync.WaitGroup
	throttling.Go(func() { o.hw.gate.throttle(ctx, run, nap) })
	o.unthrottle = func() {
		cancel()
		throttling.Wait()
	}
}

// machineState is all that migrates of a machine but memory. It travels as package plain has it.
type machineState struct {
	KVM     kvmState
	Devices devicesState
}

// Save returns the state, and marks what saving it and the devices' rings have changed of memory: a pass over
// that comes after it. Preconditions: Stop was called, and the disks are held with nothing in flight.
func (o *Outgoing) Save() ([]byte, error) {
	for _, d := range o.Disks() {
		if err := d.Kept(); err != nil {
			return nil, err
		}
	}
	o.hw.serial.Hold()
	s, err := o.m.save(o.hw)
	if err != nil {
		return nil, err
	}
	for _, a := range o.disks {
		a.transport.MarkRings()
	}
	return plain.Marshal(s), nil
}

// save returns the state of its hardware. Preconditions: as of saveDevices and saveKVM, but for the lock.
func (m *Machine) save(hw *hardware) (s machineState, err error) {
	m.mu.Lock()
	s.Devices, err = hw.saveDevices()
	m.mu.Unlock()
	if err != nil {
		return s, err
	}
	s.Devices.Groups = m.saveGroups()
	s.KVM, err = hw.saveKVM()
	return s, err
}

// SaveAhead returns what Incoming.Prepare can do before the guest stands. The guest runs.
func (o *Outgoing) SaveAhead() json.RawMessage {
	b, err := json.Marshal(o.hw.saveBus())
	if err != nil {
		panic(err) // numbers and bytes
	}
	return b
}

// Over is closed when the guest ends, by itself or because somebody ends it.
func (o *Outgoing) Over() <-chan struct{} { return o.hw.over }

// Leave ends the machine: its guest is somewhere else. Run returns Migrated.
func (o *Outgoing) Leave() { o.hw.ended(Migrated, nil) }

// Strand keeps the guest from running here, because its images are not this side's or it may
// run on the other side. Machine.ResumeForced undoes it.
func (o *Outgoing) Strand(reason string) {
	o.m.mu.Lock()
	o.m.held[notHere] = reason
	o.hw.gate.hold(notHere)
	o.m.mu.Unlock()
	o.hw.gate.wait()
	o.Resume() // only this keeps it from running now
}
