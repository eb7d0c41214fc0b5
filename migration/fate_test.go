package migration

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// A destination that was ended with the guest loaded and not run says so, and the guest goes on at the source, though COMMIT was sent.
func TestAbortAfterCommit(t *testing.T) {
	w := newWorld(t, "vda")
	h := newFakeHost(w, "vda")
	ends := func(a, b net.Conn) {
		t.Cleanup(func() { a.Close(); b.Close() })
		go frames(a, b, func(typ wire.Type) bool {
			if typ == wire.Commit {
				close(h.ended)
			}
			return typ != wire.Commit
		})
		go frames(b, a, func(wire.Type) bool { return true })
	}
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), h, Options{},
		func(address string) string { return relay(t, address, ends) })
	const want = "the VM was ended at the destination before its guest came"
	if r.source == nil || errors.Is(r.source, ErrUnconfirmed) || !strings.Contains(r.source.Error(), want) || r.dest == nil {
		t.Errorf("the source says %v, the destination %v", r.source, r.dest)
	}
	w.atSource()
}

// A destination that gets to COMMIT only when the source may have been resumed by its user doesn't run the guest.
func TestLateCommit(t *testing.T) {
	defer func(before time.Duration) { obeyCommit = before }(obeyCommit)
	obeyCommit = -1
	w := newWorld(t, "vda")
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{},
		func(address string) string { return address })
	if !errors.Is(r.source, ErrUnconfirmed) || !errors.Is(r.dest, ErrUncommitted) || w.runner != "" {
		t.Errorf("the source says %v, the destination %v; the guest runs at %q", r.source, r.dest, w.runner)
	}
	w.check()
}

// Without a drain, too, the disk is named that the migration waited for until the timeout.
func TestHungDiskWithoutDrain(t *testing.T) {
	w := newWorld(t, "vda", "vdb")
	g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"}, &fakeDisk{world: w, id: "vdb", busy: 3, hangs: true})
	r := w.migrate(t.Context(), g, newFakeHost(w, "vda", "vdb"), Options{Drain: drain.Off, Limits: Limits{Downtime: patience, Stall: patience, Timeout: time.Second, Offline: true}}, nil)
	const want = "disk vdb has 3 requests in flight while the vCPUs stand"
	if r.source == nil || !strings.Contains(r.source.Error(), want) {
		t.Errorf("the source says %v", r.source)
	}
	w.atSource()
}
