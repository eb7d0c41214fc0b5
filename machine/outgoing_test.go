package machine

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A guest whose migrations come to nothing, however far they went, is as before: it runs, nothing is left
// open, and KVM keeps no log. That no goroutine is left TestMain sees.
func TestMigrationsThatComeToNothingLeaveNothing(t *testing.T) {
	r := start(t, Config{CPUs: 2, Disks: diskImages(t, 2)}, count)
	attempt := func() {
		o, err := r.BeginMigration()
		if err != nil {
			t.Fatal(err)
		}
		defer o.End()
		if err := o.Track(true); err != nil {
			t.Fatal(err)
		}
		o.Throttle(50)
		if _, err := o.Describe(); err != nil {
			t.Fatal(err)
		}
		o.Stop()
		if _, err := o.Save(); err != nil {
			t.Fatal(err)
		}
		o.Throttle(0)
		o.Resume()
		if err := o.Track(false); err != nil {
			t.Fatal(err)
		}
		for i, g := range o.hw.ram.Regions() {
			bitmap := make([]uint64, g.Words())
			if err := o.Written(i, bitmap); !errors.Is(err, unix.ENOENT) {
				t.Fatalf("KVM's log of region %d: %v, want that there is none", i, err)
			}
		}
		r.moves(counterAddr, r.number(counterAddr))
	}
	r.moves(counterAddr, 0)
	attempt() // the runtime opens what it needs
	before := openFiles(t)
	for range 20 {
		attempt()
	}
	wantFiles(t, before, "after 20 migrations")
}

// What a migration does to the vCPUs lets none go on that a disk's failure stops, not even while that still waits for other disks.
func TestMigrationLeavesFailedGuestStopped(t *testing.T) {
	for name, m := range map[string]*Machine{
		"stopping": {reason: "disk vda failed a write"},
		"stopped":  {reason: "disk vda failed a write", paused: true},
		"running":  {},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate()
			o := &Outgoing{m: m, hw: &hardware{gate: g}}
			for what, do := range map[string]func(){"Resume": o.Resume, "End": o.End} {
				do()
				if want := m.reason != ""; (g.state == paused) != want {
					t.Errorf("after %s the gate is at %d", what, g.state)
				}
			}
		})
	}
}
