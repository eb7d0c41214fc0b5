package blk

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio/guestlog"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

func TestErrorPolicy(t *testing.T) {
	for _, c := range []struct {
		policy ErrorPolicy
		err    unix.Errno
		stops  bool
	}{
		{ErrorsDefault, unix.ENOSPC, true}, {ErrorsDefault, unix.EDQUOT, true}, {ErrorsDefault, unix.EIO, false},
		{ErrorsReport, unix.ENOSPC, false}, {ErrorsReport, unix.EIO, false},
		{ErrorsStop, unix.ENOSPC, true}, {ErrorsStop, unix.EIO, true},
	} {
		stopped := 0
		var retried func() bool
		d := &Device{errors: c.policy, image: &Image{}, log: guestlog.New(nil), stop: func(_ aio.Failure, r func() bool) { stopped++; retried = r }}
		if got := d.keep(aio.Failure{Err: c.err}); got != c.stops || (stopped == 1) != c.stops {
			t.Errorf("policy %d, %v: kept %v, stopped %d times", c.policy, c.err, got, stopped)
		}
		if c.stops {
			late := retried
			if retried() {
				t.Errorf("policy %d, %v: resumed, nobody knows by whom", c.policy, c.err)
			}
			d.Resume()
			d.keep(aio.Failure{Err: c.err}) // it failed again
			if !late() || retried() {
				t.Errorf("policy %d, %v: retried: %v, %v after another failure; want true, false", c.policy, c.err, late(), retried())
			}
		}
		d.stop = nil // nobody could resume it
		if d.keep(aio.Failure{Err: c.err}) {
			t.Errorf("policy %d, %v: kept without anybody to stop the guest", c.policy, c.err)
		}
	}
	for _, s := range []string{"", "ignore", "Stop", "enospc"} {
		if _, err := ParseErrorPolicy(s); err == nil {
			t.Errorf("%q is a policy", s)
		}
	}
}

// When the host has failed to write what it had cached, no flush succeeds any more, though the kernel says that it does; with
// direct I/O nothing was cached.
func TestLostWrites(t *testing.T) {
	for _, direct := range []bool{false, true} {
		m := newMachine(t)
		k := m.disk("vda", ImageOptions{}, Config{})
		k.d.Start(virtiotest.Setup{})
		k.img.direct = direct
		k.expect("before", statusOK, typeFlush, 0, nil, 0)
		k.dev.syncFailed(unix.EIO)
		want := byte(statusIOErr)
		if direct {
			want = statusOK
		}
		k.expect("a flush", want, typeFlush, 0, nil, 0)
		k.expect("another", want, typeFlush, 0, nil, 0)
		k.expect("a write", statusOK, typeOut, 0, make([]byte, 512), 0)
		k.dev.durable.Store(true) // as with the cache in writethrough
		k.expect("a write that is to be stable", want, typeOut, 0, make([]byte, 512), 0)
		if err := k.dev.Sync(t.Context()); (err == nil) != direct {
			t.Errorf("direct %v: a migration's sync: %v", direct, err)
		}
	}
}

// stuck is a log that nobody reads: whoever writes a line waits.
type stuck struct {
	slog.Handler
	read  chan struct{}
	lines chan string
}

func (s stuck) Handle(_ context.Context, r slog.Record) error {
	<-s.read
	s.lines <- r.Message
	return nil
}

// That writes are lost is said whatever else is logged of the disk at that moment, and the engine's thread doesn't wait for it.
func TestLostWritesAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := stuck{slog.NewTextHandler(io.Discard, nil), make(chan struct{}), make(chan string, 20)}
		l := slog.New(log)
		d := &Device{id: "vda", image: &Image{path: "/images/test.img"}, log: guestlog.New(l), unbounded: l}
		for range 10 { // more than guestlog passes on
			d.logFailure(&aio.Request{Op: aio.Write}, unix.EIO)
		}
		d.syncFailed(unix.EIO)
		d.syncFailed(unix.EIO)
		close(log.read)
		synctest.Wait()
		close(log.lines)
		said := 0
		for line := range log.lines {
			if strings.Contains(line, "writes of the guest's are lost") {
				said++
			}
		}
		if said != 1 || !d.image.Lost() {
			t.Errorf("said %d times, lost %v", said, d.image.Lost())
		}
	})
}
