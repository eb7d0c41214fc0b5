package blk

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio/guestlog"
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
		d := &Device{errors: c.policy, image: &Image{}, log: guestlog.New(nil), stop: func(aio.Failure) { stopped++ }}
		if got := d.keep(aio.Failure{Err: c.err}); got != c.stops || (stopped == 1) != c.stops {
			t.Errorf("policy %d, %v: kept %v, stopped %d times", c.policy, c.err, got, stopped)
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
