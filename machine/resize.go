package machine

import (
	"context"
	"fmt"

	"github.com/ebb-vmm/ebb/blk"
)

// resizeImage is a variable for tests with storage that doesn't answer.
var resizeImage = (*blk.Image).Resize

// ResizeDisk gives a disk another size in bytes and tells the guest. An image file
// grows as far as it has to; a disk never shrinks. A block device is grown by
// whoever has it, and size, if it isn't 0, is what it should have by now. An error
// is one sentence, and then nothing has changed; but if ctx ends first, storage that answers later
// resizes it all the same, and until then the disk can't be removed, nor the guest migrate. Any goroutine.
func (m *Machine) ResizeDisk(ctx context.Context, id string, size uint64) error {
	m.mu.Lock()
	d, err := m.resizable(id)
	if err == nil {
		d.resizes++
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	done, resize := make(chan error, 1), resizeImage
	go func() {
		// The file system takes the time it likes. Meanwhile others may resize the disk: the image
		// sorts that out, and the guest is told its last size.
		err := resize(d.image, size)
		m.mu.Lock()
		defer m.mu.Unlock()
		d.resizes--
		if err == nil && m.hw != nil {
			m.hw.resized(d)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("disk %s is not resized: %w", id, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("disk %s is not resized yet, as its storage doesn't answer: %w", id, context.Cause(ctx))
	}
}

// resizable returns a disk that may be resized. m.mu is held.
func (m *Machine) resizable(id string) (*disk, error) {
	d := m.findDisk(id)
	switch elsewhere := m.held[notHere]; {
	case m.stopping:
		return nil, ErrNotRunning
	case m.moving():
		return nil, ErrMigrating
	case elsewhere != "":
		return nil, fmt.Errorf("disk %s is not resized, as the images are not this side's: %s", id, elsewhere)
	case d == nil:
		return nil, fmt.Errorf("there is no disk %s", id)
	case d.unwanted:
		return nil, fmt.Errorf("disk %s is being removed", id)
	}
	return d, nil
}
