package tests

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/guest/pattern"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

var migrations = flag.Int("migrations", 4, "how often the guest of TestMigrateBackAndForth moves, and that of TestMigrateFailures is cancelled in a row")

// A guest that writes, reads back and flushes without a pause moves between two hosts again and
// again. All that was acknowledged is there, at every read and at the end, and no ebb takes more than
// the one before.
func TestMigrateBackAndForth(t *testing.T) {
	const size, epoch = 1 << 20, 4711
	hosts := [2]*host{newHost(t), newHost(t)}
	dir := t.TempDir()
	args := append(kernelArgs("6.12", "bzImage", fmt.Sprintf("ledger:size=%d:depth=8:epoch=%d", size, epoch)),
		"--name", movableName, "--memory", "128M", "--cpus", "2")
	for i, options := range []string{"", ",direct"} {
		image := filepath.Join(dir, serial(i))
		if err := os.WriteFile(image, make([]byte, 2*size), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--disk", "path="+image+",serial="+serial(i)+options)
	}
	here := hosts[0].start(args...)
	here.expect("ebb: ledger: vda begins")
	here.expect("ebb: ledger: vdb begins")
	var footprints []footprint
	for n := range *migrations {
		from, to := hosts[n%2], hosts[(n+1)%2]
		there := to.receive("--disk-dir", dir)
		there.lives()
		line := from.moves(movableName, there.address)
		if !strings.Contains(line, "in flight at stop 0\n") {
			t.Errorf("migration %d: %s", n, line)
		}
		t.Logf("migration %d: %s", n, strings.TrimSpace(line))
		here.mustEnd(5)
		if said := here.stdout.String(); strings.Contains(said, "FAILED") {
			t.Fatalf("before migration %d\n%s", n, here.transcript())
		}
		here = there.ebb
		to.progress(here)
		footprints = append(footprints, here.footprint())
	}
	wantNoGrowth(t, footprints)
	here.lives()
	here.types("\n")
	r := here.mustEnd(0)
	if r.Done == nil || !r.Done.OK {
		t.Fatalf("the guest found a fault, or did not come to its end\n%s", here.transcript())
	}
	for i, name := range []string{"vda", "vdb"} {
		f, err := os.Open(filepath.Join(dir, serial(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sum, err := pattern.SumOf(f, serial(i), epoch, 4096, size/4096)
		if err != nil {
			t.Errorf("on the host: %v", err)
		}
		if said := r.LedgerSum(name); said != fmt.Sprintf("%x", sum) {
			t.Errorf("%s has sum %x on the host; the guest says %q", name, sum, said)
		}
	}
}

// progress waits until the guest has done more on each of its disks, flushes too.
func (h *host) progress(e *ebb) {
	h.t.Helper()
	client := h.client(movableName)
	defer client.Close()
	figures := func() []control.DiskStats {
		s, err := client.Stats(h.t.Context())
		if err != nil {
			code, _ := e.wait() // for what it says in the end
			h.t.Fatalf("%v; exit code %d\n%s", err, code, e.transcript())
		}
		return s.Disks
	}
	before := figures()
	e.eventually("all disks are used", func() (any, bool) {
		now := figures()
		for i, d := range now {
			if b := before[i]; d.Read.Requests < b.Read.Requests+64 || d.Write.Requests < b.Write.Requests+64 || d.Long.Requests == b.Long.Requests {
				return now, false
			}
		}
		return now, true
	})
}

// eventually waits for something, and says where it stands if that doesn't come.
func (e *ebb) eventually(what string, look func() (state any, done bool)) {
	e.t.Helper()
	for deadline := time.Now().Add(guestDeadline / 4); ; time.Sleep(10 * time.Millisecond) {
		state, done := look()
		if done {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("waiting until %s: %+v\n%s\n%s", what, state, lab.Standing(e.cmd.Process.Pid), e.transcript())
		}
	}
}
