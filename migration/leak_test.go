package migration

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// No test here leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Migrations that succeed, fail and are cancelled, again and again, leave no goroutine and no connection.
func TestManyMigrationsLeaveNothing(t *testing.T) {
	// What only garbage collection would close is left open.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	all := func() {
		migrateOnce(t, "")
		for _, step := range []string{"prepare", "check", "reserve", "sync", "take over", "load"} {
			migrateOnce(t, step)
		}
	}
	all() // the runtime opens what it needs
	before := openFiles(t)
	for range 5 {
		all()
	}
	// One side may still be listening for what the other has to say.
	for deadline := time.Now().Add(patience); ; {
		err := goleak.Find()
		files := openFiles(t)
		if err == nil && files == before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d open files, %d before; %v", files, before, err)
		}
	}
}

// migrateOnce has a migration fail at a step, and be cancelled there in another.
func migrateOnce(t *testing.T, step string) {
	t.Helper()
	for _, breaks := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(t, "vda")
		w.breakAt = func(s string) error {
			switch {
			case s != step:
				return nil
			case breaks:
				return errors.New("it breaks here")
			}
			cancel()
			return nil
		}
		r := w.migrate(ctx, newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{}, nil)
		cancel()
		if breaks && (r.source == nil) != (step == "") {
			t.Fatalf("with %q broken: %v", step, r.source)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
