package virtio

import (
	"fmt"
	"log/slog"
)

// writeStatus is the device's side of initialisation (2.1, 3.1).
//
//	      ACKNOWLEDGE, DRIVER         FEATURES_OK                    DRIVER_OK
//	reset ───────────────────▶ known ─────────────▶ negotiated ─────────────────▶ live
//	  ▲                               refused: the          refused without         │
//	  │                               bit reads 0           FEATURES_OK             │ Fail, NeedsReset
//	  │                                                                             ▼
//	  └──── done ◀── resetting ◀──────────── 0 written, from any state ◀──── needs reset
//
// resetting lasts until the device's last request has finished; until then the status reads
// as it was, never 0 (2.4.1), and the driver waits. The driver only ever sets bits; a bit left out is ignored.
func (t *PCI) writeStatus(v uint8) {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	if v == 0 {
		t.reset()
		return
	}
	t.mu.Lock()
	r := &t.regs
	if r.resetting {
		t.mu.Unlock()
		return
	}
	added := v &^ r.status
	r.status |= added & (StatusAcknowledge | StatusDriver | StatusFailed)
	if added&StatusFeaturesOK != 0 {
		if err := t.negotiate(); err != nil {
			t.log.Log(slog.LevelWarn, "features refused", slog.Any("err", err))
		} else {
			r.status |= StatusFeaturesOK
		}
	}
	if added&StatusDriverOK == 0 || r.status&StatusFeaturesOK == 0 {
		t.mu.Unlock()
		return
	}
	r.status |= StatusDriverOK
	features, queues, err := r.driverFeatures, []*Queue(nil), error(nil)
	if !t.needsReset.Load() {
		queues, err = t.startQueues()
	}
	t.mu.Unlock()

	t.live.Store(true)
	switch {
	case err != nil:
		t.NeedsReset(err.Error())
	case queues == nil:
		t.configChange() // refused earlier, when nothing might be announced yet (2.1.2)
	default:
		if err := t.activate(features, queues); err != nil {
			t.NeedsReset(err.Error())
		}
	}
}

// activate hands the started queues to the device; t.lifecycle is held.
func (t *PCI) activate(features uint64, queues []*Queue) error {
	t.kicks.want()
	err := t.dev.Activate(features, queues)
	t.active = err == nil
	return err
}

// negotiate decides about FEATURES_OK (2.2.2, 6.1).
func (t *PCI) negotiate() error {
	f := t.regs.driverFeatures
	switch {
	case f&^t.offered != 0 || t.regs.beyond:
		return fmt.Errorf("driver accepted features that were not offered: %#x", f&^t.offered)
	case f&FeatureVersion1 == 0:
		return fmt.Errorf("driver did not accept VERSION_1: %#x", f)
	}
	if n, ok := t.dev.(Negotiator); ok {
		return n.Negotiated(f)
	}
	return nil
}

// startQueues makes the enabled queues ready for the device; t.mu is held.
func (t *PCI) startQueues() ([]*Queue, error) {
	queues := make([]*Queue, len(t.regs.queues))
	for i := range t.regs.queues {
		q := &t.regs.queues[i]
		if !q.enabled {
			continue
		}
		if err := q.queue.start(q.layout, t.regs.driverFeatures); err != nil {
			return nil, fmt.Errorf("queue %d: %w", i, err)
		}
		queues[i] = q.queue
	}
	return queues, nil
}

// reset stops the device; t.lifecycle is held, so Activate is over.
func (t *PCI) reset() {
	t.mu.Lock()
	if t.regs.resetting {
		t.mu.Unlock()
		return
	}
	t.regs.resetting = true
	t.mu.Unlock()
	t.active = false
	t.dev.Reset(t.resetDone)
}

// resetDone ends a reset: the device has nothing in flight and left the queues
// alone. Any goroutine, also before Device.Reset returns.
func (t *PCI) resetDone() {
	t.live.Store(false)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.markRings() // nobody finds them later
	t.clear()
}
