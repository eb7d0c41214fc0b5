package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
)

// Guests here see hotplug slot 1 through its port's slot control and status, at
// ports 0xcfc and 0xcfe once it is selected.
var (
	selectPort = []byte{0x66, 0xba, 0xf8, 0x0c, 0xb8, portSlotControl, 0xf8, 0x00, 0x80, 0xef} // mov dx, 0xcf8; mov eax, 0x8000f868; out dx, eax

	// polite turns the slot on, and off and on again whenever the button is pressed.
	polite = slices.Concat(selectPort, out16(0xcfc, powerOn), []byte{
		0x66, 0xba, 0xfe, 0x0c, // again: mov dx, 0xcfe
		0x66, 0xed, // in ax, dx
		0xa8, 0x01, // test al, 1: pressed
		0x74, 0xf6, // jz again
	}, out16(0xcfe, statusPressed), out16(0xcfc, powerIsOff), out16(0xcfc, powerOn), []byte{
		0xeb, 0xd6, // jmp again
	})

	// stubborn turns the slot on and does nothing else.
	stubborn = slices.Concat(selectPort, out16(0xcfc, powerOn), count)

	// restless writes whether the slot is occupied, and resets.
	restless = slices.Concat(selectPort, []byte{
		0x66, 0xba, 0xfe, 0x0c, // mov dx, 0xcfe
		0x66, 0xed, // in ax, dx
		0xc0, 0xe8, 0x06, // shr al, 6
		0x24, 0x01, // and al, 1
		0x04, '0', // add al, '0'
		0x66, 0xba, 0xf8, 0x03, 0xee, // mov dx, 0x3f8; out dx, al
	}, out8(portReset, resetValue), spin)
)

// cancelled is the context of somebody who doesn't wait.
func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func (r *rig) add(d Disk) {
	r.Helper()
	if _, err := r.AddDisk(context.Background(), d); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) remove(id string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hung)
	defer cancel()
	if err := r.RemoveDisk(ctx, id); err != nil {
		r.Fatal(err, r.where())
	}
}

// wantLocked checks whether somebody has the image.
func wantLocked(t testing.TB, path string, want bool) {
	t.Helper()
	img, err := blk.OpenImage(path, blk.ImageOptions{})
	if err == nil {
		err = img.Close()
	}
	if errors.Is(err, blk.ErrLocked) != want || err != nil && !want {
		t.Errorf("locked: %v (%v), want %v", errors.Is(err, blk.ErrLocked), err, want)
	}
}

func TestAddAndRemoveDisk(t *testing.T) {
	disks := diskImages(t, 2)
	r := start(t, Config{Disks: disks[:1], HotplugSlots: 1}, polite)
	r.until("hardware", func() bool { return r.PowerButton() == nil })
	before := openFiles(t)
	for range 20 {
		r.add(disks[1])
		wantLocked(t, disks[1].Path, true)
		if n := len(r.DiskStats()); n != 2 {
			t.Errorf("statistics of %d disks", n)
		}
		r.remove("b")
		wantLocked(t, disks[1].Path, false)
	}
	wantFiles(t, before, "after disks came and went")
}

// A guest that doesn't answer keeps its disk, and all else goes on.
func TestRemoveDiskGuestHolds(t *testing.T) {
	disks := diskImages(t, 1)
	r := start(t, Config{HotplugSlots: 2}, stubborn)
	r.moves(counterAddr, 0)
	r.add(disks[0])
	for range 3 {
		err := r.RemoveDisk(cancelled(), "a")
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "disk a") || !strings.Contains(err.Error(), "still holds it") {
			t.Errorf("error %v", err)
		}
		wantLocked(t, disks[0].Path, true)
		r.pause()
		r.resume()
		r.moves(counterAddr, r.number(counterAddr))
	}
	waiting := make(chan error)
	go func() { waiting <- r.RemoveDisk(context.Background(), "a") }()
	r.until("the removal to wait", func() bool {
		err := r.RemoveDisk(cancelled(), "a")
		return strings.Contains(err.Error(), "being removed already")
	})
	r.Stop()
	if err := <-waiting; !errors.Is(err, ErrNotRunning) {
		t.Errorf("a removal that waits when the guest ends: %v", err)
	}
}

// A guest that is paused can't let go, and who asks it to is told so. A disk that it doesn't have yet needs nobody.
func TestRemoveDiskOfPaused(t *testing.T) {
	disks := diskImages(t, 2)
	r := start(t, Config{HotplugSlots: 2}, stubborn) // which turns on the first slot
	r.moves(counterAddr, 0)
	r.add(disks[0])
	r.add(disks[1])
	r.pause()
	if paused := (*PausedError)(nil); !errors.As(r.RemoveDisk(cancelled(), "a"), &paused) {
		t.Error("nobody says that the guest is paused")
	}
	r.remove("b")
	r.resume()
	if err := r.RemoveDisk(cancelled(), "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("of a guest that runs: %v", err)
	}
}

func TestAddDiskRefuses(t *testing.T) {
	disks := diskImages(t, 2+MaxHotplugSlots)
	r := start(t, Config{Disks: disks[:1], HotplugSlots: MaxHotplugSlots}, spin)
	r.until("hardware", func() bool { return r.PowerButton() == nil })
	missing := filepath.Join(t.TempDir(), "missing")
	formatted := filepath.Join(t.TempDir(), "disk.qcow2")
	if err := os.WriteFile(formatted, slices.Concat([]byte("QFI\xfb"), make([]byte, 65532)), 0o600); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	for name, c := range map[string]struct {
		disk  Disk
		words []string
	}{
		"id":      {Disk{ID: "a", Path: disks[1].Path}, []string{"disk a", "another id"}},
		"missing": {Disk{ID: "x", Path: missing}, []string{"disk x", missing, "does not exist"}},
		"locked":  {Disk{ID: "x", Path: disks[0].Path}, []string{"disk x", disks[0].Path, "in use"}},
		"format":  {Disk{ID: "x", Path: formatted}, []string{"disk x", formatted, "qcow2", "format=raw"}},
		"options": {Disk{ID: "x", Path: disks[1].Path, QueueSize: 100}, []string{"disk x", "queue-size=100"}},
		"queues":  {Disk{ID: "x", Path: disks[1].Path, Queues: 10000}, []string{"disk x", "queues=10000"}},
	} {
		_, err := r.AddDisk(context.Background(), c.disk)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, w := range c.words {
			if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: error %q, want one sentence with %q", name, err, w)
			}
		}
	}
	wantFiles(t, before, "after refusals")

	r.add(Disk{ID: "raw", Path: formatted, Raw: true})
	r.remove("raw")
	for _, d := range disks[1 : 1+MaxHotplugSlots] {
		r.add(d)
	}
	if _, err := r.AddDisk(context.Background(), disks[1+MaxHotplugSlots]); err == nil || !strings.Contains(err.Error(), "none of 8 hotplug slots is free") {
		t.Errorf("one disk too many: %v", err)
	}
	r.remove("b") // which no guest has turned on
	r.add(disks[1+MaxHotplugSlots])
	for id, words := range map[string]string{"a": "given at start", "nosuch": "no disk nosuch"} {
		if err := r.RemoveDisk(context.Background(), id); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("removing %s: %v", id, err)
		}
	}
	if err := r.ResizeDisk(context.Background(), "nosuch", 512); err == nil || !strings.Contains(err.Error(), "no disk nosuch") {
		t.Error(err)
	}
	r.Stop()
	r.wait()
	_, late := r.AddDisk(context.Background(), Disk{ID: "late", Path: disks[1].Path})
	for what, err := range map[string]error{
		"AddDisk":    late,
		"RemoveDisk": r.RemoveDisk(context.Background(), "c"),
		"ResizeDisk": r.ResizeDisk(context.Background(), "c", 2<<20),
	} {
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s after the guest's end: %v", what, err)
		}
	}
}

// Disks that are added at the same time get ids of their own.
func TestAddDiskChoosesID(t *testing.T) {
	disks := diskImages(t, 1+MaxHotplugSlots)
	disks[0].ID = "vdb"
	r := prepare(t, Config{Disks: disks[:1], HotplugSlots: MaxHotplugSlots}, spin)
	defer r.Close() //nolint:errcheck // nothing ran
	var adding sync.WaitGroup
	ids := make([]string, MaxHotplugSlots)
	for i := range ids {
		adding.Go(func() {
			var err error
			if ids[i], err = r.AddDisk(context.Background(), Disk{Path: disks[1+i].Path}); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	slices.Sort(ids)
	if got := strings.Join(ids, " "); got != "vda vdc vdd vde vdf vdg vdh vdi" {
		t.Errorf("the ids are %s", got)
	}
}

// Before there is a guest disks come and go as well.
func TestDisksBeforeRun(t *testing.T) {
	disks := diskImages(t, 2)
	r := prepare(t, Config{NoReboot: true, HotplugSlots: 2}, restless)
	r.add(disks[0])
	r.add(disks[1])
	r.remove("a")
	r.add(disks[0])
	wantLocked(t, disks[0].Path, true)
	r.run()
	r.ends(Reset, "1")
}

// Resets build the slots anew: with what is there, without what was removed.
func TestDisksOutliveResets(t *testing.T) {
	disks := diskImages(t, 1)
	r := start(t, Config{HotplugSlots: 1}, restless)
	for range 3 {
		n := len(r.writes(1))
		r.until("an empty slot", func() bool { return strings.Contains(r.console.String()[n:], "0") })
		r.add(disks[0])
		r.until("an occupied slot", func() bool { return strings.HasSuffix(r.console.String(), "1") })
		r.remove("a") // the guest never answers: the next reset takes it
		wantLocked(t, disks[0].Path, false)
	}
}

// Everything at once.
func TestDisksRace(t *testing.T) {
	for name, code := range map[string][]byte{"polite": polite, "restless": restless} {
		t.Run(name, func(t *testing.T) {
			disks := diskImages(t, 3)
			r := start(t, Config{CPUs: 2, HotplugSlots: 3}, code)
			// What is there before is turned on for the guest, and the polite one sees to slot 1 only.
			r.until("hardware", func() bool { return r.PowerButton() == nil })
			var all sync.WaitGroup
			for _, d := range disks {
				all.Go(func() {
					for range 20 {
						if _, err := r.AddDisk(context.Background(), d); err != nil {
							t.Error(err)
							return
						}
						_ = r.RemoveDisk(cancelled(), d.ID)
						ctx, cancel := context.WithTimeout(context.Background(), hung)
						err := r.RemoveDisk(ctx, d.ID)
						for err != nil && (strings.Contains(err.Error(), "paused") || strings.Contains(err.Error(), "resized")) { // beside this, and not for long
							err = r.RemoveDisk(ctx, d.ID)
						}
						if err != nil && !strings.Contains(err.Error(), "no disk") {
							t.Error(err, r.where())
						}
						cancel()
					}
				})
			}
			all.Go(func() {
				for range 50 {
					_ = r.ResizeDisk(context.Background(), "a", 1<<20)
					_ = r.Pause(context.Background())
					r.DiskStats()
					_ = r.Resume()
				}
			})
			all.Wait()
			r.Stop()
			r.wait()
			if r.err != nil {
				t.Error(r.err)
			}
		})
	}
}

// within fails the test with all goroutines' stacks if do doesn't return in time.
func (r *rig) within(what string, do func()) {
	r.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(hung):
		r.Fatal(what, " hangs: ", r.where())
	}
}

// While storage doesn't answer, of which a disk is to be, all else goes on but a migration, which says so. Who gives up has added nothing.
func TestAddDiskOnHungStorage(t *testing.T) {
	disks := diskImages(t, 3)
	r := start(t, Config{Disks: disks[:1], HotplugSlots: 2}, polite)
	r.until("hardware", func() bool { return r.PowerButton() == nil })
	asked, answer, late := make(chan struct{}), make(chan struct{}), make(chan struct{})
	defer func(real func(string, blk.ImageOptions) (*blk.Image, error)) { openImage = real }(openImage)
	real := openImage
	openImage = func(path string, o blk.ImageOptions) (*blk.Image, error) {
		if path == disks[1].Path {
			close(asked)
			<-answer
			defer close(late)
		}
		return real(path, o)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	added := make(chan error, 1)
	go func() {
		_, err := r.AddDisk(ctx, disks[1])
		added <- err
	}()
	<-asked
	r.within("what has nothing to do with it", func() {
		r.pause()
		r.resume()
		if _, err := r.BeginMigration(); err == nil || !strings.Contains(err.Error(), "disk b is being added") {
			t.Errorf("a migration: %v", err)
		}
		if _, err := r.AddDisk(t.Context(), Disk{ID: "b", Path: disks[2].Path}); err == nil || !strings.Contains(err.Error(), "another id") {
			t.Errorf("the same id: %v", err)
		}
		r.add(disks[2])
		if _, err := r.AddDisk(t.Context(), Disk{Path: disks[2].Path}); err == nil || !strings.Contains(err.Error(), "none of 2 hotplug slots") {
			t.Errorf("the same slot: %v", err)
		}
		r.remove("c")
	})
	giveUp()
	r.within("AddDisk", func() {
		if err := <-added; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), disks[1].Path) {
			t.Error(err)
		}
	})
	o, err := r.BeginMigration()
	if err != nil {
		t.Fatal(err)
	}
	o.End()
	close(answer)
	<-late
	r.until("the image that nobody wants to be closed", func() bool {
		image, err := real(disks[1].Path, blk.ImageOptions{})
		return err == nil && image.Close() == nil
	})
	if len(r.Disks()) != 1 {
		t.Errorf("there are %v", r.Disks())
	}
}

// A removal that meets a reset: the old hardware may still have requests in flight,
// the new one is built without the disk.
func TestRemoveDiskMeetsReset(t *testing.T) {
	disks := diskImages(t, 1)
	r := prepare(t, Config{NoReboot: true, HotplugSlots: 2}, restless)
	r.add(disks[0])
	r.mu.Lock()
	r.leaving = &hardware{}
	r.mu.Unlock()
	if err := r.RemoveDisk(cancelled(), "a"); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "resetting") {
		t.Errorf("while the old hardware is there: %v", err)
	}
	wantLocked(t, disks[0].Path, true)
	r.mu.Lock()
	r.leaving = nil
	r.disks[0].unwanted = true // as while RemoveDisk waits
	r.mu.Unlock()
	r.run()
	r.ends(Reset, "0")
}

// A group lasts as long as a disk is in it, and each of its disks says what its limits are.
func TestGroupsComeAndGo(t *testing.T) {
	disks := diskImages(t, 2)
	r := prepare(t, Config{HotplugSlots: 2}, spin)
	defer r.Close() //nolint:errcheck // nothing ran
	for i := range disks {
		disks[i].Group = "g"
	}
	for _, iops := range []int64{100, 200} {
		disks[0].Limits = aio.Limits{IOPS: aio.Rate{PerSecond: iops}}
		r.add(disks[0])
		r.add(disks[1])
		r.remove("a")
		if d := r.describe(cpuTraits{}).Disks; len(d) != 1 || d[0].Limits != disks[0].Limits {
			t.Errorf("%+v", d)
		}
		r.remove("b")
		if g := r.saveGroups(); len(g) != 0 {
			t.Errorf("without disks there are %v", g)
		}
	}
}
