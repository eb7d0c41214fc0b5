package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/machine/chipset"
)

// A guest whose migrations come to nothing, however far they went, is as before: it runs, nothing is left
// open, and KVM keeps no log. That no goroutine is left TestMain sees.
func TestMigrationsThatComeToNothingLeaveNothing(t *testing.T) {
	r := start(t, Config{CPUs: 2, Disks: diskImages(t, 2)}, count)
	attempt := func() {
		o, err := r.BeginMigration()
		if err != nil {
			t.Fatal(err)
		}
		defer o.End()
		if err := o.Track(true); err != nil {
			t.Fatal(err)
		}
		wantFirst(t, o, true)
		o.Throttle(50)
		if _, err := o.Describe(); err != nil {
			t.Fatal(err)
		}
		o.Stop()
		if _, err := o.Save(); err != nil {
			t.Fatal(err)
		}
		if err := r.PowerButton(); !errors.Is(err, ErrMigrating) { // nobody would see it
			t.Fatalf("the power button of a guest that is saved: %v, want %v", err, ErrMigrating)
		}
		o.Throttle(0)
		o.Resume()
		if err := o.Track(false); err != nil {
			t.Fatal(err)
		}
		wantFirst(t, o, false)
		for i, g := range o.hw.ram.Regions() {
			bitmap := make([]uint64, g.Words())
			if err := o.Written(i, bitmap); !errors.Is(err, unix.ENOENT) {
				t.Fatalf("KVM's log of region %d: %v, want that there is none", i, err)
			}
		}
		r.moves(counterAddr, r.number(counterAddr))
	}
	r.moves(counterAddr, 0)
	attempt() // the runtime opens what it needs
	before := openFiles(t)
	for range 20 {
		attempt()
	}
	wantFiles(t, before, "after 20 migrations")
}

// wantFirst checks that the vCPUs' threads and the engine's come before others, as root can have it, or are as this one.
func wantFirst(t *testing.T, o *Outgoing, want bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // the main thread may be a vCPU's
	if err != nil {
		t.Fatal(err)
	}
	if want {
		own += preference
	}
	threads := map[string]int{"the engine": o.m.engine.Thread()}
	for _, c := range o.hw.gate.cpus {
		threads[fmt.Sprint("vCPU ", c.id)] = int(c.thread.Load())
	}
	for who, thread := range threads {
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, thread); err != nil || got != own {
			t.Fatalf("%s: %d, %v, where a thread that comes first (%v) would have %d", who, got, err, want, own)
		}
	}
}

// What a migration does to the vCPUs lets none go on that stand for another cause, nor stops others.
func TestMigrationLeavesOtherCauses(t *testing.T) {
	for _, held := range []cause{0, byFailure, notHere | byUser} {
		g := newGate()
		g.held = held
		o := &Outgoing{m: newMachine(Config{}), hw: &hardware{gate: g, serial: chipset.NewSerial(func(bool) {})}}
		for _, step := range []struct {
			what string
			do   func()
		}{{"Resume", func() { o.Stop(); o.Resume() }}, {"Throttle", func() { o.Throttle(99); o.Throttle(0) }}, {"End", func() { o.Throttle(1); o.End() }}} {
			if step.do(); g.held != held {
				t.Errorf("after %s the gate is held by %#b, before by %#b", step.what, g.held, held)
			}
		}
	}
}

// tracked is a migration of a guest that counts, with a dirty log.
func (r *rig) tracked() *Outgoing {
	r.Helper()
	r.moves(counterAddr, 0)
	o, err := r.BeginMigration()
	if err == nil {
		err = o.Track(true)
	}
	if err != nil {
		r.Fatal(err)
	}
	return o
}

// A guest that ends while it is migrated keeps its memory, and doesn't boot again, until the migration is over.
func TestEndWaitsForMigration(t *testing.T) {
	r := start(t, Config{CPUs: 2}, count)
	o := r.tracked()
	r.Stop()
	<-o.Over()
	o.hw.cpus.Wait()
	for range 1000 { // it would all be gone by now
		for i, g := range o.Memory() {
			if err := o.Written(i, make([]uint64, g.Words())); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-r.done:
		t.Fatal("the machine has ended")
	default:
	}
	o.End()
	r.ends(Stopped, "")
}

// After a migration of which nobody knows how it went KVM keeps no log, and the guest doesn't come before others.
func TestTrackingEndsWithMigration(t *testing.T) {
	r := start(t, Config{CPUs: 2}, count)
	o := r.tracked()
	o.Stop()
	if _, err := o.Save(); err != nil {
		t.Fatal(err)
	}
	o.Strand("nobody knows where it runs")
	o.End()
	wantFirst(t, o, false)
	if err := o.Written(0, make([]uint64, o.Memory()[0].Words())); !errors.Is(err, unix.ENOENT) {
		t.Errorf("KVM's log: %v, want that there is none", err)
	}
	if err := r.ResumeForced(); err != nil {
		t.Fatal(err)
	}
	r.moves(counterAddr, r.number(counterAddr))
}

// A disk in a slot that is off has no device that could be drained and saved, and one whose slot was off meanwhile has another.
func TestSlotsThatAreOffDoNotMigrate(t *testing.T) {
	disks := diskImages(t, 2)
	r := prepare(t, Config{HotplugSlots: 2}, count)
	r.add(disks[0])
	r.run()
	r.moves(counterAddr, 0)
	o, err := r.BeginMigration()
	if err != nil {
		t.Fatal(err)
	}
	kept := func() error { return o.Disks()[0].Kept() }
	if err := kept(); err != nil {
		t.Error(err)
	}
	s := r.hw.slots[0]
	power := func(v uint16) { s.port.WriteConfig(portSlotControl, binary.LittleEndian.AppendUint16(nil, v)) }
	power(powerIsOff)
	r.until("it is noticed that the slot is off", func() bool { return kept() != nil })
	power(powerOn)
	r.until("the disk has a device", func() bool { return s.function() != nil })
	if err := kept(); err == nil {
		t.Error("nobody notices that the device is another")
	}
	another := r.hw.attached(r.disks[0])
	window := slotWindow(0)
	if err := r.hw.pci.assignBARs(another.card, &window, window+slotSize); err != nil {
		t.Fatal(err)
	}
	bringUp(t, r.hw, another, 0x400000)
	takes := func() int { s, _ := another.device.Stats(); return s.Window }
	if n := takes(); n != 0 {
		t.Errorf("it takes %d requests, while the image may be the other side's", n)
	}
	o.Stop()
	if _, err := o.Save(); err == nil {
		t.Error("it is saved all the same")
	}
	o.Resume()
	if n := takes(); n != 0 {
		t.Errorf("it takes %d requests before the migration is over", n)
	}
	o.End()
	r.until("it takes requests", func() bool { return takes() == aio.Unlimited })
	r.add(disks[1])
	if o, err := r.BeginMigration(); err == nil || !strings.Contains(err.Error(), "disk b is in hotplug slot 2") {
		t.Errorf("with a slot that is off: %v, %v", o, err)
	}
}

// A guest that was resumed since a request failed, which is carried out again then, is not stopped for that any more.
func TestResumeOvertakesStop(t *testing.T) {
	r := start(t, Config{CPUs: 1, Disks: diskImages(t, 1)}, count)
	r.moves(counterAddr, 0)
	for _, retried := range []bool{true, false} {
		r.stopOnFailure(r.disks[0], aio.Failure{Op: aio.Write, Err: unix.EIO}, func() bool { return retried })
		want := Paused
		if retried {
			want = Running
		}
		if s, reason := r.State(); s != want {
			t.Errorf("resumed since: %v; the guest is %v, %q", retried, s, reason)
		}
		r.resume()
	}
}

// A disk's failure stops the guest for as long as another disk hangs, but nobody has to wait for that.
func TestFailureBesideHungDisk(t *testing.T) {
	r := start(t, Config{CPUs: 1, Disks: diskImages(t, 1)}, count)
	r.moves(counterAddr, 0)
	m := r.Machine
	if err := m.pausing.lock(t.Context()); err != nil { // as if that failure's pause did not end
		t.Fatal(err)
	}
	ctx, resumed := context.WithCancel(t.Context())
	m.mu.Lock()
	m.held[byFailure], m.cancelStop = "disk a failed a write", resumed
	m.mu.Unlock()
	go func() {
		<-ctx.Done()
		m.mu.Lock()
		delete(m.held, byFailure)
		m.cancelStop = nil
		m.mu.Unlock()
		m.pausing.unlock()
	}()
	if s, reason := m.State(); s != Paused || reason == "" {
		t.Errorf("it is %v, %q", s, reason)
	}
	if _, err := m.BeginMigration(); err == nil || !strings.Contains(err.Error(), "failed a write") {
		t.Errorf("a migration: %v", err)
	}
	if err := m.Pause(cancelled()); err == nil || !strings.Contains(err.Error(), "failed a write") {
		t.Errorf("a pause: %v", err)
	}
	if err := m.Resume(); err != nil || ctx.Err() == nil {
		t.Errorf("resume: %v", err)
	}
}

// A guest whose images are the other side's gets them back by force, all or none, and until then isn't given another size of them.
func TestRegainImages(t *testing.T) {
	disks := diskImages(t, 2)
	r := start(t, Config{Disks: disks}, count)
	r.moves(counterAddr, 0)
	o, err := r.BeginMigration()
	if err != nil {
		t.Fatal(err)
	}
	lost := o.Disks()[1].Image
	if err := errors.Join(lost.ReleaseOwner(), lost.OfferReservation()); err != nil {
		t.Fatal(err)
	}
	thief, err := blk.OpenImage(disks[1].Path, blk.ImageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o.Strand("somebody else has an image")
	o.End()
	if err := r.ResizeDisk(t.Context(), disks[1].ID, 1<<30); err == nil {
		t.Error("an image that is somebody else's was resized")
	}
	if err := r.ResumeForced(); !errors.Is(err, blk.ErrLocked) {
		t.Errorf("resumed: %v", err)
	}
	if _, err := blk.OpenImage(disks[0].Path, blk.ImageOptions{}); !errors.Is(err, blk.ErrLocked) {
		t.Errorf("the image that was never given away is free: %v", err)
	}
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.ResumeForced(); err != nil {
		t.Fatal(err)
	}
	r.moves(counterAddr, r.number(counterAddr))
}
