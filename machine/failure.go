package machine

import (
	"context"
	"fmt"

	"github.com/ebb-vmm/ebb/aio"
)

// stopOnFailure pauses the guest because the host failed a request, which is kept and carried
// out again by Resume; not if that has happened meanwhile, as retried tells. It waits for the disks.
func (m *Machine) stopOnFailure(d *disk, f aio.Failure, retried func() bool) {
	reason := fmt.Sprintf("disk %s failed a %v at %d (%d bytes): %v; resume carries it out again", d.cfg.ID, f.Op, f.Offset, f.Length, f.Err)
	if m.pausing.lock(context.Background()) != nil { // a Resume comes before both or after both
		return
	}
	defer m.pausing.unlock()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.mu.Lock()
	hw, stands := m.hw, len(m.held) > 0
	first := hw != nil && m.held.first() == "" && m.resuming == 0 && !retried()
	if first {
		m.held[byFailure], m.cancelStop = reason, cancel
	}
	m.mu.Unlock()
	if !first {
		return
	}
	m.cfg.Log.Error("a disk's failure stops the guest", "disk", d.cfg.ID, "image", d.cfg.Path, "op", f.Op.String(),
		"offset", f.Offset, "length", f.Length, "err", f.Err)
	// Other disks finish what they have in flight, which takes as long as it takes, or until somebody resumes the guest.
	var err error
	if !stands {
		err = m.pause(ctx, hw, byFailure)
	}
	m.mu.Lock()
	m.cancelStop = nil
	m.mu.Unlock()
	if err != nil {
		m.cfg.Log.Error("stopping the guest", "err", err)
		return
	}
	m.cfg.Log.Error("the guest is stopped until it is resumed", "disk", d.cfg.ID)
}
