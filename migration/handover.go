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
	d.hold, d.holding = ctx, cancel
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
		switch err := <-errs; {
		case all == nil:
			all = err
		case err != nil:
			all = fmt.Errorf("%w; %w", all, err)
		}
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
	if err == nil {
		err = d.release(ctx)
	}
	if ctx.Err() != nil {
		return nil // missed, which somebody else has noticed
	}
	return err
}

// release gives the owner locks away and says so, unless the hold is over: takeBack comes before or after.
func (d *sourceDriver) release(ctx context.Context) error {
	err := onDisks(d.disks, func(k Disk) error {
		return d.lock(k, func() error {
			if err := d.give(ctx, &d.released, k); err != nil {
				return err
			}
			return k.ReleaseOwner()
		})
	})
	if err != nil {
		return err
	}
	d.telling.Lock()
	if err = ctx.Err(); err == nil {
		d.handedOver = true
		err = d.control.Send(wire.Handover, nil)
	}
	d.telling.Unlock()
	if err != nil && ctx.Err() == nil {
		return d.unsent(err)
	}
	return err
}

// give notes that a disk's lock is given away, unless that is over: who looks at the list afterwards to take it back finds the disk there.
func (d *sourceDriver) give(ctx context.Context, list *[]Disk, k Disk) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := ctx.Err()
	if err == nil {
		*list = append(*list, k)
	}
	return err
}

// lockLimit is how long a lock call may take: longer than one that waits for readers to find an image locked. Tests change it.
var lockLimit = deadLink

// errLockHangs is for one that takes longer.
var errLockHangs = errors.New("the lock of the image hangs, as on a file server that doesn't answer")

// lock makes one of a disk's lock calls: one at a time, on a goroutine of its own, as a file server that is dead keeps it for ever.
// Past lockLimit it is errLockHangs, though the call goes on. mu is not held, for the loop takes that.
func (d *sourceDriver) lock(k Disk, call func() error) error {
	turn, late := d.turn(k), time.After(lockLimit)
	select {
	case turn <- struct{}{}:
	case <-late:
		return errLockHangs
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-turn }()
		done <- call()
	}()
	select {
	case err := <-done:
		return err
	case <-late:
		return errLockHangs
	}
}

// turn has an element while one of a disk's lock calls is made.
func (d *sourceDriver) turn(k Disk) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turns == nil {
		d.turns = map[Disk]chan struct{}{}
	}
	if d.turns[k] == nil {
		d.turns[k] = make(chan struct{}, 1)
	}
	return d.turns[k]
}

// giveBack has the destination give the images back, if it was given them.
func (d *sourceDriver) giveBack() (asked bool, err error) {
	d.telling.Lock()
	defer d.telling.Unlock()
	if !d.handedOver {
		return false, nil
	}
	d.handedOver = false
	select {
	case <-d.given: // nobody asked for that
	default:
	}
	return true, d.control.Send(wire.GiveBack, nil)
}

// takeBack undoes handOver.
func (d *sourceDriver) takeBack(ctx context.Context) (Event, error) {
	asked, err := d.giveBack()
	if err != nil {
		return Event{}, d.unsent(err)
	}
	if asked {
		select {
		case <-d.given:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-time.After(answerLimit):
			return Event{}, errors.New("the destination does not give the images back")
		}
	}
	return Event{}, onDisks(d.away(&d.released), d.regain) // after a failure there are more tries
}

// away returns the disks of one of the lists: whose locks were given away.
func (d *sourceDriver) away(list *[]Disk) []Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(*list)
}

// here reports whether a disk's owner lock is certainly here.
func (d *sourceDriver) here(k Disk) bool { return !slices.Contains(d.away(&d.released), k) }

// regain takes a disk's owner lock, which was given away, at once: nobody has it.
func (d *sourceDriver) regain(k Disk) error { return d.reclaimed(&d.released, k, k.ReclaimOwner) }

// reclaimed makes the call that takes a disk off a list.
func (d *sourceDriver) reclaimed(list *[]Disk, k Disk, call func() error) error {
	return d.lock(k, func() error {
		err := call()
		if err == nil {
			d.mu.Lock()
			*list = slices.DeleteFunc(*list, func(x Disk) bool { return x == k })
			d.mu.Unlock()
		}
		return err
	})
}

// reclaim takes back every lock that was given away, those first without which there is no I/O: each disk opens when its own is here.
// A destination that doesn't know yet that it is over may have them for as long as it takes to notice.
func (d *sourceDriver) reclaim() {
	go func() {
		d.post(Event{Kind: Reclaimed}) // of the others
		if err := onDisks(d.away(&d.released), func(k Disk) error {
			err := again(func() error { return d.regain(k) }, d.ownersLate)
			if err == nil {
				d.post(Event{Kind: Reclaimed})
			}
			return err
		}); err != nil {
			d.post(Event{Kind: OwnerLost, Err: fmt.Errorf("the migration failed and %w", err)})
		} else {
			d.mu.Lock()
			d.awaited = ""
			d.mu.Unlock()
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
	return onDisks(d.away(&d.offered), func(k Disk) error { return d.reclaimed(&d.offered, k, k.ReclaimReservation) })
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
