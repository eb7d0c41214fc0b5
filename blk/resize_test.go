package blk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func imageFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestResize(t *testing.T) {
	path := imageFile(t, 1<<20)
	img, err := OpenImage(path, ImageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	dev := &Device{image: img}
	dev.UpdateCapacity()
	fileSize := func() int64 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	for _, c := range []struct {
		size       uint64
		words      string // of the error
		want, file int64
	}{
		{2 << 20, "", 2 << 20, 2 << 20},
		{2 << 20, "", 2 << 20, 2 << 20},
		{1 << 20, "has 2097152 bytes and can't shrink to 1048576", 2 << 20, 2 << 20},
		{0, "can't shrink to 0", 2 << 20, 2 << 20},
		{2<<20 + 100, "multiple of 512", 2 << 20, 2 << 20},
		{1<<63 + 512, "the most is", 2 << 20, 2 << 20},
		{1<<63 - 512, "can't grow from 2097152", 2 << 20, 2 << 20}, // more than any file system has
	} {
		err := img.Resize(c.size)
		if (err == nil) != (c.words == "") || err != nil && (!strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), path)) {
			t.Errorf("%d bytes: error %v, want %q", c.size, err, c.words)
		}
		if img.Size() != c.want || fileSize() != c.file {
			t.Errorf("%d bytes: the image has %d, the file %d", c.size, img.Size(), fileSize())
		}
	}
	// A file that somebody else made larger is not cut to what the disk gets.
	if err := os.Truncate(path, 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := img.Resize(4 << 20); err != nil || img.Size() != 4<<20 || fileSize() != 8<<20 {
		t.Errorf("error %v, the image has %d, the file %d", err, img.Size(), fileSize())
	}
	if dev.capacity.Load() != 2048 {
		t.Errorf("capacity %d before it is updated", dev.capacity.Load())
	}
	if dev.UpdateCapacity(); dev.capacity.Load() != 8192 {
		t.Errorf("capacity %d, want 8192", dev.capacity.Load())
	}
}

// Storage that doesn't answer a Resize holds up no Close; the image is locked until it does.
func TestHungResize(t *testing.T) {
	path := imageFile(t, 1<<20)
	img, err := OpenImage(path, ImageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	asked, answer, done := make(chan struct{}), make(chan struct{}), make(chan error)
	defer func(real func(int, int64) error) { truncate = real }(truncate)
	truncate = func(fd int, size int64) error {
		close(asked)
		<-answer
		return unix.Ftruncate(fd, size)
	}
	go func() { done <- img.Resize(2 << 20) }()
	<-asked
	if err := img.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenImage(path, ImageOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("somebody else has the image that is being resized: %v", err)
	}
	close(answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
	again, err := OpenImage(path, ImageOptions{})
	if err != nil || again.Size() != 2<<20 {
		t.Fatal(again, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestResizeReadOnly(t *testing.T) {
	path := imageFile(t, 1<<20)
	img, err := OpenImage(path, ImageOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if err := img.Resize(2 << 20); err == nil || !strings.Contains(err.Error(), "reading only") {
		t.Error(err)
	}
	// Nothing has to be written for what somebody else made larger.
	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := img.Resize(2 << 20); err != nil || img.Size() != 2<<20 {
		t.Errorf("error %v, the image has %d bytes", err, img.Size())
	}
}
