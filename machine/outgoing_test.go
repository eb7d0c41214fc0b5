package machine

import (
	"errors"
	"fmt"
	"os"
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
		wantFirst(t, o, true)
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
		wantFirst(t, o, false)
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

// wantFirst checks that the vCPUs' threads and the engine's come before others, as root can have it, or are as this one.
func wantFirst(t *testing.T, o *Outgoing, want bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // the main thread may be a vCPU's
	if err != nil {
		t.Fatal(err)
	}
	if want {
		own += preference
	}
	threads := map[string]int{"the engine": o.m.engine.Thread()}
	for _, c := range o.hw.gate.cpus {
		threads[fmt.Sprint("vCPU ", c.id)] = int(c.thread.Load())
	}
	for who, thread := range threads {
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, thread); err != nil || got != own {
			t.Fatalf("%s: %d, %v, where a thread that comes first (%v) would have %d", who, got, err, want, own)
		}
	}
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
