package blk

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

func incoming(t testing.TB, path string, o ImageOptions) *Image {
	t.Helper()
	i, err := OpenIncoming(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() }) //nolint:errcheck // a test may have closed it
	return i
}

// lockedOut checks that nobody else gets the image, to read or to write.
func lockedOut(t *testing.T, when, path string) {
	t.Helper()
	for _, readOnly := range []bool{false, true} {
		if i, err := OpenImage(path, ImageOptions{ReadOnly: readOnly}); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: somebody else opens it (read-only %v): %v", when, readOnly, err)
			if err == nil {
				i.Close() //nolint:errcheck // it should not be open
			}
		}
	}
}

// There and back, with a stranger at the door after each step, and every step twice.
func TestHandOver(t *testing.T) {
	for _, o := range []ImageOptions{{}, {Direct: true}} {
		path := writeImage(t, 1<<20)
		s := open(t, path, o)
		d := incoming(t, path, o)
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, ErrLocked) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", what, err)
			}
			lockedOut(t, what, path)
		}
		did := func(what string, step func() error) {
			t.Helper()
			for range 2 {
				if err := step(); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				lockedOut(t, what, path)
			}
		}
		for range 2 {
			refused("reservation that was not offered", d.TakeReservation())
			did("OfferReservation", s.OfferReservation)
			did("TakeReservation", d.TakeReservation)
			refused("ReclaimReservation of what is taken", s.ReclaimReservation())
			refused("TakeOver too early", d.TakeOver())
			did("ReleaseOwner", s.ReleaseOwner)
			did("ReclaimOwner", s.ReclaimOwner)
			did("ReleaseOwner again", s.ReleaseOwner)
			did("TakeOver", d.TakeOver)
			refused("ReclaimOwner of what is taken", s.ReclaimOwner())
			did("back: ReleaseOwner", d.ReleaseOwner)
			did("back: ReclaimOwner", s.ReclaimOwner)
			refused("back: the destination's TakeOver", d.TakeOver())
			did("back: OfferReservation", d.OfferReservation)
			did("back: ReclaimReservation", s.ReclaimReservation)
		}
		// And for good.
		if err := errors.Join(s.OfferReservation(), d.TakeReservation(), s.ReleaseOwner(), d.TakeOver(), s.Close()); err != nil {
			t.Error(err)
		}
		lockedOut(t, "after the source is gone", path)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		for what, step := range map[string]func() error{"TakeOver": d.TakeOver, "ReclaimOwner": d.ReclaimOwner} {
			if step() == nil {
				t.Errorf("%s after Close", what)
			}
		}
		open(t, path, ImageOptions{})
	}
}

// A failed TakeOver leaves the owner lock to the source.
func TestFailedTakeOverGivesTheOwnerLockBack(t *testing.T) {
	for name, spoil := range map[string]struct {
		do   func(path string) error
		says string
	}{
		"grown": {func(p string) error { return os.Truncate(p, 2<<20) }, "2097152 bytes now and had 1048576"},
		"replaced": {func(p string) error {
			return errors.Join(os.Rename(p, p+".old"), os.WriteFile(p, make([]byte, 1<<20), 0o600))
		}, "replaced"},
		"gone": {os.Remove, "does not exist"},
	} {
		path := writeImage(t, 1<<20)
		s, d := open(t, path, ImageOptions{}), incoming(t, path, ImageOptions{})
		before := openFiles(t)
		err := errors.Join(s.OfferReservation(), d.TakeReservation(), s.ReleaseOwner(), spoil.do(path))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.TakeOver(); err == nil || !strings.Contains(err.Error(), spoil.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.ReclaimOwner(); err != nil || !d.incoming.Load() {
			t.Errorf("%s: %v", name, err)
		}
		if now := openFiles(t); now != before {
			t.Errorf("%s: %d open files, %d before", name, now, before)
		}
	}
}

// While the locks go over to another descriptor, again and again, nobody slips in.
func TestNobodySlipsIn(t *testing.T) {
	path := writeImage(t, 1<<20)
	s, d := open(t, path, ImageOptions{}), incoming(t, path, ImageOptions{})
	if err := errors.Join(s.OfferReservation(), d.TakeReservation(), s.ReleaseOwner(), d.TakeOver(), s.Close()); err != nil {
		t.Fatal(err)
	}
	d.coherent = true // no cache is dropped, which takes most of the time
	stop := make(chan struct{})
	var strangers sync.WaitGroup
	for _, readOnly := range []bool{false, true} {
		strangers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				i, err := OpenImage(path, ImageOptions{ReadOnly: readOnly})
				if err == nil {
					t.Errorf("a stranger has the image, read-only: %v", readOnly)
					i.Close() //nolint:errcheck // it should not be open
					return
				}
			}
		})
	}
	raw, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()     //nolint:errcheck // nothing was written
	strangers.Go(func() { // who tries the one byte that is held all the time, without asking first
		for {
			select {
			case <-stop:
				return
			default:
			}
			if lockByte(int(raw.Fd()), lockReservation, unix.F_WRLCK) == nil {
				t.Error("a stranger has the reservation")
				return
			}
		}
	})
	taken := 0
	for range 3000 {
		switch err := errors.Join(d.ReleaseOwner(), d.TakeOver()); {
		case err == nil:
			taken++
		case !errors.Is(err, ErrLocked):
			t.Fatal(err)
		}
	}
	close(stop)
	strangers.Wait()
	if taken < 2500 { // a reader may be in the way for a moment
		t.Errorf("TakeOver succeeded %d times of 3000", taken)
	}
}

// A reader that was at the reservation when the locks went over doesn't get the image when the owner lock is released.
func TestReleaseOwnerAfterAReader(t *testing.T) {
	path := writeImage(t, 1<<20)
	s, d := open(t, path, ImageOptions{}), incoming(t, path, ImageOptions{})
	if err := errors.Join(s.OfferReservation(), d.TakeReservation(), s.ReleaseOwner(), d.TakeOver(), s.Close()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()          //nolint:errcheck // only read
	d.reservationShared = true // as passLocks leaves it then
	for _, fd := range []int{d.fd, int(raw.Fd())} {
		if err := lockByte(fd, lockReservation, unix.F_RDLCK); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.ReleaseOwner(); !errors.Is(err, ErrLocked) {
		t.Errorf("beside the reader: %v", err)
	}
	lockedOut(t, "beside the reader", path)
	if err := lockByte(int(raw.Fd()), lockReservation, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	if err := d.ReleaseOwner(); err != nil {
		t.Error(err)
	}
	lockedOut(t, "released", path)
}

// Read-only images are shared by both sides all the time.
func TestReadOnlyHandOver(t *testing.T) {
	path := writeImage(t, 1<<20)
	o := ImageOptions{ReadOnly: true}
	s, d := open(t, path, o), incoming(t, path, o)
	if err := errors.Join(s.OfferReservation(), d.TakeReservation(), s.ReleaseOwner(), d.TakeOver(), s.ReclaimOwner(), s.ReclaimReservation()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenImage(path, ImageOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("a writer: %v", err)
	}
	open(t, path, o)
}

// A device has no port before its image is this host's.
func TestIncomingImageServesNobody(t *testing.T) {
	m := newMachine(t)
	path := writeImage(t, fileSize)
	k := m.diskFrom("vda", func() (*Image, error) { return OpenIncoming(path, ImageOptions{}) }, Config{})
	k.d.Start(virtiotest.Setup{})
	if _, ok := k.dev.Stats(); ok || m.engine.Stats().Demand != 0 {
		t.Error("the disk is on the engine")
	}
	k.d.Reset()
	if err := errors.Join(k.img.TakeReservation(), k.img.TakeOver()); err != nil {
		t.Fatal(err)
	}
	k.d.Start(virtiotest.Setup{})
	k.expect("read", statusOK, typeIn, 0, nil, 512)
}

// TakeOver drops what this host has cached, unless it is the source's own cache.
func TestTakeOverDropsCache(t *testing.T) {
	for _, same := range []bool{false, true} {
		path := writeImage(t, 1<<20)
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close() //nolint:errcheck // only read
		b := make([]byte, 1<<20)
		cached := func() bool {
			n, err := unix.Preadv2(int(file.Fd()), [][]byte{b}, 0, unix.RWF_NOWAIT)
			if err == unix.EOPNOTSUPP { // tmpfs, which is all cache: nothing of it could be dropped
				t.Skip("TMPDIR is on tmpfs; /tmp of most machines is not")
			}
			if err != nil && err != unix.EAGAIN {
				t.Fatal(err)
			}
			return n > 0
		}
		if _, err := file.WriteAt(b, 0); err != nil { // dirty pages too
			t.Fatal(err)
		}
		s, d := open(t, path, ImageOptions{}), incoming(t, path, ImageOptions{})
		source := s.Identity()
		if !same {
			source.Boot = "of another host"
		}
		if err := errors.Join(d.CheckIncoming(source), s.OfferReservation(), d.TakeReservation(), s.ReleaseOwner(), d.TakeOver()); err != nil {
			t.Fatal(err)
		}
		if cached() != same {
			t.Errorf("same host: %v, cached: %v", same, !same)
		}
	}
}
