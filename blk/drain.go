package blk

import (
	"context"

	"github.com/ebb-vmm/ebb/aio"
)

// SetDrainWindow bounds the requests the disk may have in flight while a migration lets them
// ebb away: 0 holds it, aio.Unlimited is no bound. It holds for a driver that comes later
// too, until it is set again. It doesn't wait. Any goroutine.
func (d *Device) SetDrainWindow(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drain = n
	if port := d.port.Load(); port != nil {
		port.SetWindow(aio.CauseDrain, n)
	}
}

// Idle waits until the disk has nothing in flight, but for requests that failed and are kept
// (PortStats.Kept), and the guest has been told. It stays so only while the window is 0. The
// error names the disk and wraps ctx's. Any goroutine but the engine's.
func (d *Device) Idle(ctx context.Context) error {
	if port := d.port.Load(); port != nil {
		return port.Idle(ctx)
	}
	return nil
}

// Port returns the disk's port on the engine, nil while no driver uses it. Any goroutine.
func (d *Device) Port() *aio.Port { return d.port.Load() }
