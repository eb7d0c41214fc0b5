package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/machine"
)

// A guest that has used all of its disks and now leaves them alone costs the engine nothing:
// over ten seconds its thread is not woken once, and it uses no processor time.
func TestIdleEngine(t *testing.T) {
	var cfg machine.Config
	for i := range 16 {
		cfg.Disks = append(cfg.Disks, machine.Disk{ID: fmt.Sprint(i), Path: makeImage(t, fmt.Sprint(i), 1<<20)})
	}
	g := startMachine(t, "6.1", cfg)
	g.expect(prompt)
	g.run("for d in /dev/vd*; do dd if=$d of=/dev/null bs=4k count=64 iflag=direct; done; sleep 1")
	for _, d := range g.DiskStats() {
		if d.Read.Requests < 64 {
			t.Errorf("disk %s did only %d reads", d.ID, d.Read.Requests)
		}
	}
	engine := engineThread(t)
	before, used := g.EngineStats().Enters, engine.used(t)
	g.run("sleep 10")
	if woken := g.EngineStats().Enters - before; woken != 0 {
		t.Errorf("the engine's thread was woken %d times", woken)
	}
	if after := engine.used(t); after != used {
		t.Errorf("the engine's thread was busy: %s before, %s after", used, after)
	}
}

// thread is a thread's folder in /proc.
type thread string

// engineThread finds the one engine's thread of this process.
func engineThread(t *testing.T) thread {
	t.Helper()
	names, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		t.Fatal(err)
	}
	var found []thread
	for _, name := range names {
		if comm, err := os.ReadFile(name); err == nil && string(comm) == "ebb-engine\n" { // others end all the time
			found = append(found, thread(filepath.Dir(name)))
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d threads are named ebb-engine", len(found))
	}
	return found[0]
}

// used says how much processor time the thread has had, and how often it had to wait for something.
func (th thread) used(t *testing.T) string {
	t.Helper()
	schedstat, err := os.ReadFile(string(th) + "/schedstat") // nanoseconds run, waited for a processor, and times run
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(schedstat))
}
