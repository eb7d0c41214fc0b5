package machine

import (
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
	for _, noReboot := range []bool{false, true} {
		o := Outgoing{m: &Machine{kernel: kernel, cfg: Config{Kernel: path, NoReboot: noReboot}}}
		if files := o.BootFiles(); len(files) != 0 != !noReboot {
			t.Errorf("NoReboot %v: %d files go with it", noReboot, len(files))
		}
	}
}
