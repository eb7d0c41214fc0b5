package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// holdContext begins what belongs to one hold. It ends with the hold, or with the migration.
func (d *sourceDriver) holdContext() context.Context {
	d.holding()
	ctx, cancel := context.WithCancel(d.ctx)
	d.holding = cancel
	return ctx
}

// closeDisks closes all disks and posts Drained when nothing is in flight. The vCPUs stand.
func (d *sourceDriver) closeDisks() {
	d.report.closing(d)
	d.drains.close()
	d.task(Drained, func(ctx context.Context) (Event, error) {
		return Event{}, onDisks(d.disks, func(k Disk) error { return k.Idle(ctx) })
	})
}

// onDisks does something with all disks at once.
func onDisks(disks []Disk, f func(Disk) error) error {
	errs := make(chan error, len(disks))
	for _, k := range disks {
		go func() {
			err := f(k)
			if err != nil {
				err = fmt.Errorf("disk %s: %w", k.ID(), err)
			}
			errs <- err
		}()
	}
	var all error
	for range disks {
		all = errors.Join(all, <-errs)
	}
	return all
}

// handOver gives the images away: the guest still runs, but none of its requests is in flight or taken.
func (d *sourceDriver) handOver(ctx context.Context) error {
	err := onDisks(d.disks, func(k Disk) error {
		if err := k.Idle(ctx); err != nil { // now it is, but the guest may not have been told
			return err
		}
		return k.Sync(ctx)
	})
	if ctx.Err() != nil {
		return nil // missed, which somebody else has noticed
	}
	if err != nil {
		return err
	}
	sent, err := d.release(ctx)
	if err != nil && !sent {
		return d.unsent(err)
	}
	return err
}

// release gives the owner locks away and says so, unless the hold is over. Both under the lock, so that
// takeBack comes before or after. sent is false where it could not be said.
func (d *sourceDriver) release(ctx context.Context) (sent bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return true, nil
	}
	for _, k := range d.disks {
		d.released = append(d.released, k)
		if err := k.ReleaseOwner(); err != nil {
			return true, fmt.Errorf("disk %s: %w", k.ID(), err)
		}
	}
	d.handedOver = true
	err = d.control.Send(wire.Handover, nil)
	return err == nil, err
}

// takeBack undoes handOver.
func (d *sourceDriver) takeBack(ctx context.Context) (Event, error) {
	d.mu.Lock()
	handed := d.handedOver
	d.handedOver = false
	d.mu.Unlock()
	if handed {
		select {
		case <-d.given: // nobody asked for that
		default:
		}
		if err := d.control.Send(wire.GiveBack, nil); err != nil {
			return Event{}, d.unsent(err)
		}
		select {
		case <-d.given:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-time.After(answerLimit):
			return Event{}, errors.New("the destination does not give the images back")
		}
	}
	return Event{}, d.regain() // after a failure there are more tries
}

// regain takes the owner locks that were given away, at once: nobody has them.
func (d *sourceDriver) regain() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.released) > 0 {
		k := d.released[0]
		if err := k.ReclaimOwner(); err != nil {
			return fmt.Errorf("disk %s: %w", k.ID(), err)
		}
		d.released = d.released[1:]
	}
	return nil
}

// reclaim takes back every lock that was given away, those first without which there is no I/O. A destination that doesn't know yet
// that it is over may have them for as long as it takes to notice.
func (d *sourceDriver) reclaim() {
	go func() {
		if err := again(d.regain, d.ownersLate); err != nil {
			d.post(Event{Kind: OwnerLost, Err: fmt.Errorf("the migration failed and %w", err)})
		} else {
			d.mu.Lock()
			d.awaited = ""
			d.mu.Unlock()
			d.post(Event{Kind: Reclaimed})
			if err := again(d.reclaimReservations, func(waited time.Duration) bool { return waited >= quickReclaim }); err != nil {
				d.o.Log.Warn("the reservation of an image isn't free again; nobody else gets the image all the same", "err", err)
			}
		}
		d.post(Event{Kind: Settled})
	}()
}

// again does something until it succeeds, or it is late.
func again(f func() error, late func(waited time.Duration) bool) error {
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if err := f(); err == nil || late(time.Since(begin)) {
			return err
		}
	}
}

// ownersLate reports whether owner locks are waited for no longer. If that takes long the user is told.
func (d *sourceDriver) ownersLate(waited time.Duration) bool {
	d.mu.Lock()
	if waited >= slowReclaim && d.awaited == "" {
		var ids []string
		for _, k := range d.released {
			ids = append(ids, k.ID())
		}
		d.awaited = fmt.Sprintf("the migration failed; waiting up to %v for the locks of images that the destination had: disk %s", reclaimLimit, strings.Join(ids, ", "))
		d.o.Log.Warn(d.awaited + "; until then the guest's requests wait")
	}
	d.mu.Unlock()
	select {
	case <-d.guest.Over():
		return waited >= quickReclaim
	default:
		return waited >= reclaimLimit
	}
}

func (d *sourceDriver) reclaimReservations() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all error
	d.offered = slices.DeleteFunc(d.offered, func(k Disk) bool {
		err := k.ReclaimReservation()
		if err != nil {
			all = errors.Join(all, fmt.Errorf("disk %s: %w", k.ID(), err))
		}
		return err == nil
	})
	return all
}

// writeBack keeps what the guest writes from gathering in the host's page cache.
func (d *sourceDriver) writeBack() {
	ctx := d.ctx
	for _, k := range d.disks {
		d.tasks.Go(func() {
			for ctx.Err() == nil {
				if k.SyncDebt() > 0 {
					_ = k.WriteBack(ctx) // what it can't, Sync says
				}
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
}
