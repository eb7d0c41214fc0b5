package blk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// The drain window holds the disk, and stays for a driver that comes later.
func TestDrainWindow(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{})
	if err := k.dev.Idle(ctx); err != nil { // no driver
		t.Error(err)
	}
	for _, before := range []bool{true, false} { // the driver
		if before {
			k.dev.SetDrainWindow(0)
		}
		k.d.Start(virtiotest.Setup{})
		q := k.d.Queues[0]
		if !before {
			k.dev.SetDrainWindow(0)
			if err := k.dev.Idle(ctx); err != nil { // then it is in force
				t.Error(err)
			}
		}
		rq := sendOn(k.mem, q, typeIn, 0, nil, 512)
		q.Kick()
		for range 3 {
			if err := k.dev.Idle(ctx); err != nil {
				t.Error(err)
			}
		}
		s, _ := k.dev.Stats()
		if s.Windows[aio.CauseDrain] != 0 || s.Windows[aio.CausePause] != aio.Unlimited || s.InFlight != 0 || k.mem.RAM(rq.status, 1)[0] != noStatus {
			t.Errorf("held before the driver %v: %+v", before, s)
		}
		// A pause meanwhile changes nothing of it.
		if err := k.dev.Pause(ctx); err != nil {
			t.Error(err)
		}
		k.dev.Resume()
		if err := k.dev.Idle(ctx); err != nil || k.mem.RAM(rq.status, 1)[0] != noStatus {
			t.Errorf("the pause let it go, %v", err)
		}
		k.dev.SetDrainWindow(1)
		if q.Wait(); k.mem.RAM(rq.status, 1)[0] != statusOK {
			t.Error("the request failed")
		}
		k.dev.SetDrainWindow(aio.Unlimited)
		k.d.Reset()
	}
	// Paused and bounded before the driver: both hold.
	k.dev.SetDrainWindow(3)
	if err := k.dev.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	k.d.Start(virtiotest.Setup{})
	if err := k.dev.Idle(ctx); err != nil {
		t.Error(err)
	}
	if s, _ := k.dev.Stats(); s.Windows[aio.CauseDrain] != 3 || s.Windows[aio.CausePause] != 0 {
		t.Errorf("windows %v", s.Windows)
	}
	k.dev.Resume()
}

// Sync and WriteBack pay the debt; with a closed image they fail.
func TestSync(t *testing.T) {
	ctx := context.Background()
	for _, o := range []ImageOptions{{}, {Direct: true}} {
		m := newMachine(t)
		k := m.disk("vda", o, Config{})
		for name, sync := range map[string]func(context.Context) error{"Sync": k.dev.Sync, "WriteBack": k.dev.WriteBack} {
			if err := sync(ctx); err != nil {
				t.Errorf("%s without a driver: %v", name, err)
			}
			k.d.Start(virtiotest.Setup{})
			k.expect("write", statusOK, typeOut, 0, make([]byte, 4096), 0)
			if s, _ := k.dev.Stats(); s.SyncDebt != 4096 {
				t.Errorf("debt %d", s.SyncDebt)
			}
			if err := sync(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if s, _ := k.dev.Stats(); s.SyncDebt != 0 || s.Flushes != 0 {
				t.Errorf("%s: %+v", name, s)
			}
			k.d.Reset()
		}
	}
	read := newMachine(t).disk("vda", ImageOptions{ReadOnly: true}, Config{})
	if err := read.dev.Sync(ctx); err != nil {
		t.Error(err)
	}
	i := open(t, writeImage(t, 4096), ImageOptions{})
	if err := errors.Join(i.sync(), i.writeBack(), i.Close()); err != nil {
		t.Error(err)
	}
	if i.sync() == nil {
		t.Error("synced after Close")
	}
}

// A block device with direct I/O has nothing to be synced, unless this host's page cache is below it.
func TestSyncOfSharedDevice(t *testing.T) {
	sys := t.TempDir()
	for _, dir := range []string{"vda/slaves", "vda/vda1", "loop0/slaves", "loop0/loop0p1", "dm-0/slaves", "dm-1/slaves", "dm-1/dm-1p1", "dm-2/slaves"} {
		if err := os.MkdirAll(filepath.Join(sys, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"vda/vda1/partition", "loop0/loop0p1/partition", "dm-1/dm-1p1/partition"} {
		if err := os.WriteFile(filepath.Join(sys, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"dm-0/slaves/vda1": "vda/vda1", "dm-1/slaves/dm-2": "dm-2", "dm-1/slaves/vda": "vda", "dm-2/slaves/loop0p1": "loop0/loop0p1",
	} {
		if err := os.Symlink(filepath.Join(sys, target), filepath.Join(sys, name)); err != nil {
			t.Fatal(err)
		}
	}
	for dev, want := range map[string]bool{
		"vda": false, "vda/vda1": false, "dm-0": false,
		"loop0": true, "loop0/loop0p1": true, "dm-2": true, "dm-1": true, "dm-1/dm-1p1": true, "none": true,
	} {
		if got := onLoop(filepath.Join(sys, dev)); got != want {
			t.Errorf("%s on a loop device: %v", dev, got)
		}
	}
	k := newMachine(t).disk("vda", ImageOptions{Direct: true}, Config{})
	entries, err := filepath.Glob("/sys/dev/block/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var major, minor uint32
		if _, err := fmt.Sscanf(filepath.Base(e), "%d:%d", &major, &minor); err != nil {
			t.Fatal(err)
		}
		k.dev.image.device, k.dev.image.place.dev = true, unix.Mkdev(major, minor)
		synced := false
		if err := k.dev.syncBy(t.Context(), func(*Image) error { synced = true; return nil }); err != nil || synced != onLoop(e) {
			t.Errorf("%s: synced %v, %v", e, synced, err)
		}
	}
}

// A disk that hangs holds up a Sync for as long as it may wait, and only one at a time hangs.
func TestSyncOfHungDisk(t *testing.T) {
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{})
	began, goOn := make(chan struct{}, 100), make(chan struct{})
	hung := func(*Image) error { began <- struct{}{}; <-goOn; return nil }
	ctx, cancel := context.WithCancel(context.Background())
	late := make(chan error)
	go func() { late <- k.dev.syncBy(ctx, hung) }()
	<-began
	cancel()
	if err := <-late; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "vda") {
		t.Errorf("%v", err)
	}
	for range 20 {
		if err := k.dev.syncBy(ctx, hung); !errors.Is(err, context.Canceled) {
			t.Errorf("a second one: %v", err)
		}
	}
	close(goOn)
	if err := k.dev.Sync(context.Background()); err != nil || len(began) != 0 {
		t.Errorf("afterwards: %v", err)
	}
}

// What could not be written stays an error until the guest has flushed, and pays nothing.
func TestFailedSync(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{})
	k.d.Start(virtiotest.Setup{})
	k.expect("write", statusOK, typeOut, 0, make([]byte, 4096), 0)
	if err := k.dev.syncBy(ctx, func(*Image) error { return unix.EIO }); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), k.path) {
		t.Errorf("%v", err)
	}
	if err := k.dev.Sync(ctx); !errors.Is(err, unix.EIO) {
		t.Errorf("once more: %v", err)
	}
	if s, _ := k.dev.Stats(); s.SyncDebt != 4096 {
		t.Errorf("debt %d", s.SyncDebt)
	}
	k.expect("flush", statusOK, typeFlush, 0, nil, 0)
	if err := k.dev.Sync(ctx); err != nil {
		t.Errorf("after the flush: %v", err)
	}
}

// The limit goes on with what it had, also with a later driver, and after a reboot.
func TestTokensOfDisk(t *testing.T) {
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{Limits: aio.Limits{IOPS: aio.Rate{PerSecond: 1, Burst: 1000}}})
	tokens := func() float64 {
		var s State
		if err := json.Unmarshal(k.dev.SaveState(), &s); err != nil {
			t.Fatal(err)
		}
		if s.Tokens == nil {
			return 0
		}
		return s.Tokens.IOPS
	}
	if got := tokens(); got != 0 {
		t.Errorf("%v tokens without a driver", got)
	}
	if err := k.dev.LoadState(json.RawMessage(`{"Writeback":true,"Tokens":{"IOPS":300}}`)); err != nil {
		t.Fatal(err)
	}
	k.d.Start(virtiotest.Setup{})
	for range 50 {
		k.expect("read", statusOK, typeIn, 0, nil, 512)
	}
	if got := tokens(); got < 249 || got > 270 {
		t.Errorf("%v tokens", got)
	}
	k.d.Reset()
	k.d.Start(virtiotest.Setup{})
	k.expect("read", statusOK, typeIn, 0, nil, 512)
	if got := tokens(); got < 248 || got > 270 {
		t.Errorf("%v tokens with a second driver", got)
	}
	k.d.Reset()
	if got := tokens(); got < 248 || got > 270 {
		t.Errorf("%v tokens without a driver", got)
	}
	again, err := New(Config{ID: "vda", Image: k.dev.image, Engine: m.engine, Limits: k.dev.limits})
	if err != nil {
		t.Fatal(err)
	}
	k.dev = again
	if got := tokens(); got < 248 || got > 270 {
		t.Errorf("%v tokens after a reboot", got)
	}
	for _, bad := range []string{`{"Writeback":true,"Tokens":{"IOPS":1e300}}`, `{"Writeback":true,"Tokens":{"BPS":-1e30}}`} {
		if k.dev.LoadState(json.RawMessage(bad)) == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
