package cli

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/machine"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// fakeHotplug is a machine whose disks can be changed, as far as it is told.
type fakeHotplug struct {
	added   machine.Disk
	removed string
	size    uint64
	err     error
}

func (f *fakeHotplug) AddDisk(_ context.Context, d machine.Disk) (string, error) {
	f.added = d
	return "id " + d.ID, f.err
}

func (f *fakeHotplug) RemoveDisk(_ context.Context, id string) error { f.removed = id; return f.err }

func (f *fakeHotplug) ResizeDisk(_ context.Context, _ string, size uint64) error {
	f.size = size
	return f.err
}

// A request from the socket is checked as a command line is, whoever sent it.
func TestControlledDisks(t *testing.T) {
	lab.NeedKVM(t)
	cfg := machine.Config{
		Kernel: kernel(t, t.TempDir(), obedient()), Memory: 16 << 20, CPUs: 1,
		Disks: []machine.Disk{{ID: "vda", Path: image(t)}, {ID: "vdc", Path: image(t)}},
	}
	m := must[*machine.Machine](t)(machine.New(cfg))
	defer m.Close()
	disks := &fakeHotplug{}
	v := newControlled(m, "web", cfg)
	v.disks = disks
	for _, c := range []struct {
		keys, dir string
		want      machine.Disk
		status    int
		says      string
	}{
		{"path=/a/b", "", machine.Disk{Path: "/a/b"}, 0, ""},
		{"path=../b,direct,queues=2", "/a/c", machine.Disk{Path: "/a/b", Direct: true, Queues: 2}, 0, ""},
		{"path=/a,id=data,serial=S,readonly,queue-size=64", "", machine.Disk{ID: "data", Path: "/a", Serial: "S", ReadOnly: true, QueueSize: 64}, 0, ""},
		{"path=b", "", machine.Disk{}, 400, "absolute path"},
		{"path=b", "c", machine.Disk{}, 400, "absolute path"},
		{"path=/b,id=../b", "", machine.Disk{}, 400, "is no id"},
		{"path=/b,queues=0", "", machine.Disk{}, 400, "queues=0"},
		{"", "/", machine.Disk{}, 400, "path=FILE"},
		{"path=/b,id=vdc", "", machine.Disk{}, 409, "id vdc is another disk's"},
	} {
		*disks = fakeHotplug{}
		id, err := v.AddDisk(t.Context(), c.keys, c.dir)
		if c.status == 0 {
			if err != nil || disks.added != c.want || id != "id "+c.want.ID {
				t.Errorf("%s: %+v, error %v, want %+v", c.keys, disks.added, err, c.want)
			}
			continue
		}
		wantRefused(t, err, c.status, c.says)
		if disks.added != (machine.Disk{}) {
			t.Errorf("%s: %+v was added", c.keys, disks.added)
		}
	}

	noError(t, v.ResizeDisk(t.Context(), "vda", 1<<30))
	noError(t, v.RemoveDisk(t.Context(), "vdc"))
	if disks.size != 1<<30 || disks.removed != "vdc" {
		t.Errorf("%+v", disks)
	}
	wantRefused(t, v.ResizeDisk(t.Context(), "vda", 1000), 400, "1000 bytes")
	wantRefused(t, v.ResizeDisk(t.Context(), "vdb", 1024), 404, `"vdb"`)
	wantRefused(t, v.RemoveDisk(t.Context(), strings.Repeat("x", 1000)), 404, "no disk")
	disks.err = errors.New("the image is in use; give another")
	wantRefused(t, v.RemoveDisk(t.Context(), "vda"), 409, "the image is in use; give another")
	disks.err = &machine.PausedError{}
	wantRefused(t, v.RemoveDisk(t.Context(), "vda"), 409, "web is paused, so that its guest can't let go of disk vda; run `ebb resume web`")
	disks.err = &machine.PausedError{Reason: "disk vdc failed a read"}
	wantRefused(t, v.RemoveDisk(t.Context(), "vda"), 409, "web is paused (disk vdc failed a read), so that")

	// There is no guest.
	wantRefused(t, v.Resume(false), 409, "just starting or ending")
	wantRefused(t, v.PowerButton(), 409, "just starting or ending")
	if i := v.Info(); i.State != "starting" || filepath.Join(i.Disks...) != "vda/vdc" {
		t.Errorf("%+v", i)
	}
}

func wantRefused(t *testing.T, err error, status int, says string) {
	t.Helper()
	e := (*control.Error)(nil)
	if !errors.As(err, &e) || e.Status != status || !strings.Contains(e.Message, says) {
		t.Errorf("error %v (%+v), want %d and %s", err, e, status, says)
	}
}
