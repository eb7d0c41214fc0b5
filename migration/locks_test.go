package migration

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
)

// open returns a disk that takes requests, when there is one.
func (w *world) open() string {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		w.mu.Lock()
		for id, n := range w.windows {
			if n == drain.Unlimited {
				w.mu.Unlock()
				return id
			}
		}
		w.mu.Unlock()
	}
	w.t.Error("all disks stay closed")
	return ""
}

// A disk whose lock hangs while it is given away, as on a file server that doesn't answer, keeps nobody from cancelling the migration,
// and no other disk closed; and opens when the call has returned.
func TestHangingLock(t *testing.T) {
	w := newWorld(t, "vda", "vdb")
	ctx, cancel := context.WithCancel(t.Context())
	var first atomic.Bool
	w.breakAt = func(s string) error {
		if s == "release" && first.CompareAndSwap(false, true) {
			cancel()
			w.open() // the other one
		}
		return nil
	}
	r := w.migrate(ctx, newFakeGuest(w, &fakeDisk{world: w, id: "vda"}, &fakeDisk{world: w, id: "vdb"}), newFakeHost(w, "vda", "vdb"), Options{}, nil)
	if !errors.Is(r.source, errCancelled) || !first.Load() {
		t.Errorf("%v", r.source)
	}
	w.atSource()
}

// If that never is, the migration ends all the same, with or without somebody who cancels it. The guest doesn't go on without its disk.
func TestLockHangsForEver(t *testing.T) {
	for name, policy := range map[string]drain.Policy{"adaptive": drain.Adaptive, "off": drain.Off} {
		t.Run(name, func(t *testing.T) {
			defer func(l, r time.Duration) { lockLimit, reclaimLimit = l, r }(lockLimit, reclaimLimit)
			lockLimit, reclaimLimit = 200*time.Millisecond, 200*time.Millisecond
			w := newWorld(t, "vda", "vdb")
			answers := make(chan struct{})
			var first atomic.Bool
			w.breakAt = func(s string) error {
				if s == "release" && first.CompareAndSwap(false, true) {
					<-answers
				}
				return nil
			}
			r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}, &fakeDisk{world: w, id: "vdb"}), newFakeHost(w, "vda", "vdb"),
				Options{Drain: policy}, nil)
			id := w.open()
			w.mu.Lock()
			if !errors.Is(r.source, errLockHangs) || w.runner != "" || !strings.Contains(w.paused, errLockHangs.Error()) || strings.Contains(w.paused, id) {
				t.Errorf("%v; it runs at %q, paused %q; disk %s is open", r.source, w.runner, w.paused, id)
			}
			for other, n := range w.windows {
				if (n == 0) == (other == id) || w.owner[other] != "source" {
					t.Errorf("disk %s: owner %q, window %d", other, w.owner[other], n)
				}
			}
			w.check()
			w.mu.Unlock()
			close(answers)
		})
	}
}

// A lock that takes longer to give away than a hold may last: HANDOVER isn't said any more, and the next hold gives it away again.
func TestSlowLock(t *testing.T) {
	w := newWorld(t, "vda")
	missed := make(chan struct{})
	var first atomic.Bool
	var once sync.Once
	w.breakAt = func(s string) error {
		if s == "release" && first.CompareAndSwap(false, true) {
			<-missed
		}
		return nil
	}
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{
		Limits: Limits{Downtime: 10 * time.Second, Stall: 300 * time.Millisecond, Timeout: patience},
		Progress: func(p Progress) {
			if p.Retries > 0 {
				once.Do(func() { close(missed) })
			}
		},
	}, nil)
	if r.source != nil || len(r.report.Retries) == 0 || r.report.Retries[0] != "the hand-over of the images" {
		t.Errorf("%v, retries %q", r.source, r.report.Retries)
	}
	w.atDestination()
}

// Nor does a reservation whose lock hangs keep anybody, while the destination is asked.
func TestReservationHangs(t *testing.T) {
	defer func(l, q time.Duration) { lockLimit, quickReclaim = l, q }(lockLimit, quickReclaim)
	lockLimit, quickReclaim = 200*time.Millisecond, 200*time.Millisecond
	w := newWorld(t, "vda")
	answers := make(chan struct{})
	w.breakAt = func(s string) error {
		if s == "offer" {
			<-answers
		}
		return nil
	}
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{}, nil)
	if !errors.Is(r.source, errLockHangs) {
		t.Errorf("%v", r.source)
	}
	w.atSource()
	close(answers)
}

// One disk's lock calls come one after another, also behind one that hangs; another's don't wait for it.
func TestOneLockCallAtATime(t *testing.T) {
	defer func(before time.Duration) { lockLimit = before }(lockLimit)
	w := newWorld(t)
	d, k := &sourceDriver{}, &fakeDisk{world: w, id: "vda"}
	answers := make(chan struct{})
	begun, first := make(chan struct{}), make(chan error, 1)
	lockLimit = patience
	go func() { first <- d.lock(k, func() error { close(begun); <-answers; return nil }) }()
	<-begun
	lockLimit = time.Millisecond
	if err := d.lock(k, func() error { t.Error("it didn't wait for its turn"); return nil }); err != errLockHangs {
		t.Errorf("%v", err)
	}
	lockLimit = patience
	if err := d.lock(&fakeDisk{world: w, id: "vdb"}, func() error { return nil }); err != nil {
		t.Errorf("another disk: %v", err)
	}
	close(answers)
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
	if err := d.lock(k, func() error { return nil }); err != nil {
		t.Errorf("when the first has returned: %v", err)
	}
}
