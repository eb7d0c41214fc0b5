package blk

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What a migration has left standing gets back what this side gave up, unless the image was written since; and what it had all along
// stays its own, whatever comes.
func TestRegain(t *testing.T) {
	free := func(when, path string) {
		t.Helper()
		i, err := OpenImage(path, ImageOptions{})
		if err != nil {
			t.Errorf("%s: nobody else can open it: %v", when, err)
			return
		}
		must(t, i.Close())
	}
	path := writeImage(t, 1<<20)
	i := open(t, path, ImageOptions{})
	away := func() {
		t.Helper()
		must(t, i.ReleaseOwner())
		must(t, i.OfferReservation())
		free("given away", path)
	}

	holds := func(when string, owner, reservation bool) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		for at, want := range map[int64]bool{lockOwner: owner, lockReservation: reservation} {
			if got, err := lockHeld(int(f.Fd()), at, unix.F_WRLCK); err != nil || got != want {
				t.Errorf("%s: lock %#x held: %v, %v", when, at, got, err)
			}
		}
	}

	undo, err := i.Regain()
	must(t, err)
	must(t, undo())
	holds("had it all along", true, true)

	away()
	if undo, err = i.Regain(); err != nil {
		t.Fatal(err)
	}
	holds("regained", true, true)
	must(t, undo())
	free("undone", path)

	must(t, i.ReclaimReservation()) // one of two
	undo, err = i.Regain()
	must(t, err)
	must(t, undo())
	holds("had the reservation", false, true)
	must(t, i.OfferReservation())

	other := open(t, path, ImageOptions{})
	if _, err := i.Regain(); !errors.Is(err, ErrLocked) {
		t.Errorf("somebody else has it: %v", err)
	}
	must(t, other.Close())
	free("was somebody else's", path)

	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{1}, 4096)
	must(t, err)
	must(t, f.Close())
	if _, err := i.Regain(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("it was written: %v", err)
	}
	free("was written", path)

	// What this side writes itself is not what it asks about.
	must(t, i.ReclaimOwner())
	must(t, i.ReclaimReservation())
	if _, err := i.Regain(); err != nil {
		t.Errorf("it has it: %v", err)
	}
	away()
	if _, err := i.Regain(); err != nil {
		t.Errorf("given away anew: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
