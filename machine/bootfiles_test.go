package machine

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-vmm/ebb/machine/boot"
)

// The kernel goes with a guest that will boot it again, and only then.
func TestBootFiles(t *testing.T) {
	path := kernelFile(t, spin)
	kernel, err := boot.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.Close() })
	empty := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		noReboot bool
		initrd   string
		want     int
	}{{false, "", 1}, {true, "", 0}, {false, path, 2}, {false, empty, 0}} { // an initrd that is empty by now would never come
		o := Outgoing{m: &Machine{kernel: kernel, cfg: Config{Kernel: path, Initrd: c.initrd, NoReboot: c.noReboot, Log: slog.New(slog.DiscardHandler)}}}
		files := o.BootFiles()
		if len(files) != c.want {
			t.Errorf("%+v: %d files go with it", c, len(files))
		}
		for _, f := range files {
			f.Content.Close()
		}
	}
}
