package guest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// The disk benchmark on a machine that is not ebb's, and without KVM's clock.
func TestDiskBenchInQEMU(t *testing.T) {
	kernel, err := guest.BuildDiskBench(t.Context(), t.TempDir())
	if _, lacks := errors.AsType[guest.LackError](err); lacks {
		lab.SkipTest(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, machine := range []string{"pc", "q35"} {
		// Room for a second processor: QEMU 7.2 leaves a guest's memory barriers out where there can be only one, as if no
		// other thread of its own looked at the rings, and a kick gets lost.
		cmd := emulator(t, "-M", machine, "-smp", "1,maxcpus=2", "-m", "64",
			"-kernel", kernel, "-append", "verify mode=mix depth=8 seconds=1")
		for i := range 2 { // one slot, two functions
			cmd.Args = append(cmd.Args, "-blockdev", fmt.Sprintf("driver=null-co,read-zeroes=on,size=1048576,node-name=n%d", i),
				"-device", fmt.Sprintf("virtio-blk-pci,drive=n%d,addr=4.%d,multifunction=on", i, i))
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("QEMU: %v: %s", err, out)
		}
		// A null disk keeps nothing, and that has to be seen.
		b, err := report.ParseDiskBench(string(out))
		if err == nil || b.Disks != 2 || b.IOPS <= 0 || b.Errors != 0 || b.Mismatches == 0 {
			t.Errorf("%s: %+v, error %v\n%s", machine, b, err, out)
		}
	}
}
