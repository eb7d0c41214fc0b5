package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/blk"
)

func TestResizeDisk(t *testing.T) {
	disks := diskImages(t, 2)
	r := start(t, Config{Disks: disks[:1], HotplugSlots: 1}, polite)
	r.until("hardware", func() bool { return r.PowerButton() == nil })
	r.add(disks[1])
	for _, d := range disks {
		if err := r.ResizeDisk(context.Background(), d.ID, 4<<20); err != nil {
			t.Error(err)
		}
		if st, err := os.Stat(d.Path); err != nil || st.Size() != 4<<20 {
			t.Errorf("%s: %d bytes, %v", d.ID, st.Size(), err)
		}
		err := r.ResizeDisk(context.Background(), d.ID, 1<<20)
		if err == nil || !strings.Contains(err.Error(), "disk "+d.ID) || !strings.Contains(err.Error(), "can't shrink") {
			t.Error(err)
		}
	}
}

// Hardware that is being made while a disk is resized has the new size when it starts.
func TestResizeBetweenBoots(t *testing.T) {
	disks := diskImages(t, 1)
	r := prepare(t, Config{Disks: disks}, spin)
	hw, err := newHardware(r.Machine)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ResizeDisk(context.Background(), "a", 4<<20); err != nil {
		t.Error(err)
	}
	if err := hw.preset(r.disks); err != nil {
		t.Error(err)
	}
	var sectors [8]byte
	hw.disks[0].device.ReadConfig(0, sectors[:])
	if n := binary.LittleEndian.Uint64(sectors[:]); n != 4<<20/512 {
		t.Errorf("the guest would see %d sectors", n)
	}
	if err := errors.Join(hw.close(), r.Close()); err != nil {
		t.Error(err)
	}
}

// While a file system takes its time with a resize all else goes on, but the disk can't be removed: its image would stay locked.
func TestSlowResize(t *testing.T) {
	disks := diskImages(t, 2)
	r := start(t, Config{Disks: disks[:1], HotplugSlots: 1}, polite)
	r.until("hardware", func() bool { return r.PowerButton() == nil })
	r.add(disks[1])
	asked, answer := make(chan struct{}), make(chan struct{})
	resize := resizeImage
	t.Cleanup(func() { resizeImage = resize })
	resizeImage = func(i *blk.Image, size uint64) error {
		asked <- struct{}{}
		<-answer
		return resize(i, size)
	}
	errs := map[string]chan error{}
	for _, d := range disks {
		done := make(chan error, 1)
		errs[d.ID] = done
		go func() { done <- r.ResizeDisk(context.Background(), d.ID, 4<<20) }()
		<-asked
	}
	r.pause()
	r.resume()
	if err := r.RemoveDisk(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "disk b is being resized") {
		t.Errorf("it is removed beside that: %v", err)
	}
	close(answer)
	for id, done := range errs {
		if err := <-done; err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	r.remove("b")
	wantLocked(t, disks[1].Path, false)
}

// A resize whose storage doesn't answer is waited for by nobody who has given up, but keeps the guest from migrating.
func TestResizeDiskOnHungStorage(t *testing.T) {
	disks := diskImages(t, 1)
	r := start(t, Config{Disks: disks}, spin)
	r.until("hardware", func() bool { return r.PowerButton() == nil })
	asked, answer := make(chan struct{}), make(chan struct{})
	defer func(real func(*blk.Image, uint64) error) { resizeImage = real }(resizeImage)
	real := resizeImage
	resizeImage = func(i *blk.Image, size uint64) error {
		asked <- struct{}{}
		<-answer
		return real(i, size)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	resized := make(chan error, 1)
	go func() { resized <- r.ResizeDisk(ctx, "a", 4<<20) }()
	<-asked
	giveUp()
	r.within("ResizeDisk", func() {
		if err := <-resized; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "disk a is not resized yet") {
			t.Error(err)
		}
	})
	if _, err := r.BeginMigration(); err == nil || !strings.Contains(err.Error(), "disk a is being resized") {
		t.Errorf("a migration: %v", err)
	}
	close(answer)
	r.until("the disk to have its size", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.disks[0].resizes == 0
	})
	if n := r.disks[0].image.Size(); n != 4<<20 {
		t.Errorf("it has %d bytes", n)
	}
}
