package tests

import (
	"encoding/binary"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// movable is a guest with a disk in use and one whose storage can hang, which is to be
// unharmed by whatever becomes of its migrations.
type movable struct {
	*ebb
	*host
	image   string // vda's
	slow    *hanging
	windows map[string]map[string]int // of the disks, as they were at first
	files   int                       // open in its process
	control *control.Client
}

const movableName = "web"

func startMovable(t *testing.T, engine string) *movable {
	t.Helper()
	g := &movable{host: newHost(t), image: makeImage(t, "image", 16<<20), slow: newHanging(t)}
	g.ebb = g.start(append(kernelArgs("6.1", "bzImage", ""), "--name", movableName, "--memory", "128M", "--cpus", "2", "--aio", engine,
		"--disk", "path="+g.image, "--disk", "path="+g.slow.Path+",direct")...)
	g.expect(prompt)
	g.run("dmesg -c >/dev/null; yes kept | head -c 65536 > /tmp/kept; dd if=/tmp/kept of=/dev/vda bs=64k count=1 conv=fsync 2>/dev/null")
	// The pauses leave the lab's processors to what is tested.
	g.run("(while dd if=/dev/vda of=/dev/null bs=4k count=64 skip=16 iflag=direct; do usleep 50000; done) >/dev/null 2>&1 & " +
		"(while dd if=/tmp/kept of=/dev/vda bs=4k count=16 seek=512 oflag=direct conv=fsync; do usleep 50000; done) >/dev/null 2>&1 & true")
	g.control = g.host.client(movableName)
	g.windows = g.openings()
	g.files = len(g.openFiles())
	return g
}

// openings are the bounds of requests in flight, by disk and cause.
func (g *movable) openings() map[string]map[string]int {
	g.ebb.t.Helper()
	s, err := g.control.Stats(g.ebb.t.Context())
	g.must(err)
	all := map[string]map[string]int{}
	for _, d := range s.Disks {
		all[d.ID] = d.Windows
	}
	return all
}

func (g *movable) must(err error) {
	g.ebb.t.Helper()
	if err != nil {
		g.ebb.t.Fatalf("%v\n%s", err, g.transcript())
	}
}

func (g *movable) info() control.Info {
	g.ebb.t.Helper()
	i, err := g.control.Info(g.ebb.t.Context())
	g.must(err)
	return i
}

// wantUnharmed checks that the guest goes on at the source as if nothing had happened.
func (g *movable) wantUnharmed(t *testing.T) {
	t.Helper()
	if i := g.info(); i.State != "running" || i.Migrating || i.Reason != "" {
		t.Errorf("the VM is %+v", i)
	}
	if now := g.openings(); !reflect.DeepEqual(now, g.windows) {
		t.Errorf("the disks' windows are %v, and were %v", now, g.windows)
	}
	wantLocked(t, g.image)
	g.slow.wantLocked()
	g.goesOn()
}

// goesOn waits until the guest has done more on its good disk.
func (g *movable) goesOn() {
	g.ebb.t.Helper()
	before := g.figures(0)
	g.eventually("the guest goes on", func() (any, bool) {
		d := g.figures(0)
		return d, d.Read.Requests > before.Read.Requests+64 && d.Write.Requests > before.Write.Requests+16 && d.Long.Requests > before.Long.Requests
	})
}

// figures are those of one of the disks.
func (g *movable) figures(disk int) control.DiskStats {
	g.ebb.t.Helper()
	s, err := g.control.Stats(g.ebb.t.Context())
	g.must(err)
	return s.Disks[disk]
}

// saysOften waits until ebb's standard error has text so many times.
func (e *ebb) saysOften(text string, times int) {
	e.t.Helper()
	if !e.await(func() bool { return strings.Count(e.stderr.String(), text) >= times }) {
		e.t.Fatalf("ebb ended before it said %q %d times\n%s", text, times, e.transcript())
	}
}

// under waits until a migration has come to a phase.
func (g *movable) under(m *ebb, phase string) {
	g.ebb.t.Helper()
	m.complains(" s · " + phase)
}

// One guest's migrations fail in every way that can be timed from outside; then one succeeds.
func TestMigrateFailures(t *testing.T) {
	g := startMovable(t, "threads")
	vdb := "vdb=" + g.slow.Path
	good := []string{"--disk-path", "vda=" + g.image, "--disk-path", vdb}

	g.lives()
	g.refused(t, vdb, good)
	g.lives()
	g.interrupted(t, good)
	g.lives()
	g.hangs(t, good)

	g.lives()
	g.again(t, good)
	g.lives()
	g.eventually("no file is open but those that were before", func() (any, bool) { f := g.openFiles(); return f, len(f) == g.files })

	dst := newHost(t)
	there := dst.receive(good...)
	for _, junk := range notAMigration() {
		there.sent(t, junk)
	}
	// As other VMMs do it: the guest stands until its disk answers, and is not to be told a lie about how long.
	began := g.clock()
	m := g.migrate(movableName, there.address, "--drain", "off")
	m.saysOften(" s · stop", 3) // once a second
	g.slow.resume()
	if code, _ := m.wait(); code != 0 {
		t.Fatalf("exit code %d\n%s\n--- the destination\n%s", code, m.transcript(), there.transcript())
	}
	var inFlight int
	_, last, _ := strings.Cut(m.stdout.String(), " · in flight at stop ")
	if _, err := fmt.Sscan(last, &inFlight); err != nil || inFlight < stuckReads+1 {
		t.Errorf("%d requests hung, and the result is %q", stuckReads+1, m.stdout.String())
	}
	there.passed(began)
	g.mustEnd(5)
	if got := there.run("dd if=/dev/vda bs=64k count=1 iflag=direct 2>/dev/null | cmp - /tmp/kept && echo same"); got != "same\n" {
		t.Errorf("what the guest wrote before everything is not there: %q", got)
	}
	there.quiet()
	there.types("poweroff -f\n")
	there.mustEnd(0)
}

// A guest that resets while it is migrated boots again here, once the migration has let go of it.
func TestResetWhileMigrating(t *testing.T) {
	h, image := newHost(t), makeImage(t, "image", 16<<20)
	e := h.start(append(kernelArgs("6.1", "bzImage", ""), "--name", movableName, "--memory", "128M", "--disk", "path="+image)...)
	e.expect(prompt)
	there := newHost(t).receive("--disk-path", "vda="+image)
	m := h.migrate(movableName, there.address, "--bandwidth", "1M")
	m.complains(" s · precopy")
	e.mu.Lock()
	booted := strings.Count(e.stdout.String(), prompt)
	e.mu.Unlock()
	e.types("reboot -f\n")
	h.fails(m, "the guest ended or reset before it was migrated")
	h.fails(there.ebb, "web is not migrated, says its source: ")
	e.lives()
	if !e.await(func() bool { return strings.Count(e.stdout.String(), prompt) > booted }) {
		t.Fatalf("it did not boot again\n%s", e.transcript())
	}
	wantLocked(t, image)
	if got := e.run("dd if=/dev/vda of=/dev/null bs=1M count=1 2>/dev/null && echo read"); got != "read\n" {
		t.Errorf("its disk: %q", got)
	}
	e.types("poweroff -f\n")
	e.mustEnd(0)
}

// refused are migrations that don't even begin.
func (g *movable) refused(t *testing.T, vdb string, good []string) {
	t.Run("nobody listens", func(t *testing.T) {
		g.fails(g.migrate(movableName, "tcp:127.0.0.1:1"), "tcp:127.0.0.1:1 is not reached", "connection refused", "ebb receive")
		g.wantUnharmed(t)
	})
	for _, c := range []struct {
		name string
		at   *host
		args []string
		text string
	}{
		{"no image", newHost(t), []string{"--disk-path", vdb, "--disk-dir", t.TempDir()}, "disk vda"},
		{"another image", newHost(t), []string{"--disk-path", vdb, "--disk-path", "vda=" + makeImage(t, "image", 16<<20)}, "is not the image the source has"},
		{"another size", newHost(t), []string{"--disk-path", vdb, "--disk-path", "vda=" + nullDevice(t, 8, "cache_size", "1")}, "fewer than the 16777216 the guest knows of"},
		{"name in use", g.host, good, "another VM on this host has this name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			there := c.at.receive(c.args...)
			g.fails(g.migrate(movableName, there.address), "the destination at "+there.address+" says: ", c.text)
			there.complains("a migration is refused")
			g.wantUnharmed(t)
			there.terminate() // it waits for the next one
			g.fails(there.ebb, "before a VM came")
		})
	}
}

// interrupted are migrations that something ends while memory is copied.
func (g *movable) interrupted(t *testing.T, good []string) {
	slowly := []string{"--bandwidth", "1M"}
	t.Run("cancelled", func(t *testing.T) {
		there := newHost(t).receive(good...)
		m := g.migrate(movableName, there.address, slowly...)
		g.under(m, "precopy")
		if i := g.info(); !i.Migrating || i.State != "running" {
			t.Errorf("while it is migrated the VM is %+v", i)
		}
		wantLocked(t, g.image)
		again := newHost(t).receive(good...)
		g.fails(g.migrate(movableName, again.address), "web can't be migrated: ", "the guest is being migrated")
		ctx := t.Context()
		_, add := g.control.AddDisk(ctx, control.DiskToAdd{Disk: "path=" + makeImage(t, "more", 1<<20)})
		for what, err := range map[string]error{"pause": g.control.Pause(ctx), "resume": g.control.Resume(ctx, false), "disk add": add} {
			if err == nil || !strings.Contains(err.Error(), "the guest is being migrated") {
				t.Errorf("%s while it is migrated: %v", what, err)
			}
		}
		g.goesOn()
		if err := m.cmd.Process.Signal(unix.SIGINT); err != nil {
			t.Fatal(err)
		}
		g.fails(m, "cancelled: the guest goes on here (running)")
		g.fails(there.ebb, "web is not migrated, says its source: ", "cancelled")
		g.wantUnharmed(t)
	})
	t.Run("client killed", func(t *testing.T) {
		there := newHost(t).receive(good...)
		m := g.migrate(movableName, there.address, slowly...)
		g.under(m, "precopy")
		if err := m.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		g.fails(there.ebb, "web is not migrated, says its source: ", "cancelled")
		g.eventually("it is not migrated any more", func() (any, bool) { i := g.info(); return i, !i.Migrating })
		g.wantUnharmed(t)
	})
	t.Run("destination killed", func(t *testing.T) {
		there := newHost(t).receive(good...)
		m := g.migrate(movableName, there.address, slowly...)
		g.under(m, "precopy")
		there.complains("web comes from")
		if err := there.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		g.fails(m, "the link to "+there.address+" is lost")
		g.wantUnharmed(t)
	})
	t.Run("ended at the destination", func(t *testing.T) {
		at := newHost(t)
		there := at.receive(good...)
		m := g.migrate(movableName, there.address)
		there.complains("web comes from")
		g.must(at.client(movableName).Kill(t.Context()))
		g.fails(m, "the VM was ended at the destination")
		g.fails(there.ebb, "web is not migrated", "ended at the destination")
		g.wantUnharmed(t)
	})
}

// hangs are migrations while a disk doesn't answer.
func (g *movable) hangs(t *testing.T, good []string) {
	g.slow.hang()
	g.stuck(movableName, "vdb", "vdb", stuckReads+1)
	t.Run("hung disk", func(t *testing.T) {
		there := newHost(t).receive(good...)
		m := g.migrate(movableName, there.address, "--timeout", "12s")
		g.under(m, "setup") // how much further it comes is up to the machine
		g.goesOn()
		g.fails(m, "not migrated within --timeout 12s", "disk vdb")
		g.fails(there.ebb, "web is not migrated, says its source: ")
		g.wantUnharmed(t)
	})
	t.Run("destination killed while the guest stands", func(t *testing.T) {
		there := newHost(t).receive(good...)
		m := g.migrate(movableName, there.address, "--drain", "off")
		g.under(m, "stop")
		if err := there.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		g.fails(m, "the link to "+there.address+" is lost")
		g.wantUnharmed(t)
	})
}

// again are migrations that are cancelled, one after the other.
func (g *movable) again(t *testing.T, good []string) {
	t.Run("again and again", func(t *testing.T) {
		g.control.Close() // for the footprint
		var footprints []footprint
		for range max(*migrations, 12) { // so that a leak of 2 MiB in each is seen
			there := newHost(t).receive(good...)
			m := g.migrate(movableName, there.address, "--bandwidth", "1M")
			g.under(m, "precopy")
			if err := m.cmd.Process.Signal(unix.SIGINT); err != nil {
				t.Fatal(err)
			}
			g.fails(m, "cancelled: the guest goes on here (running)")
			g.fails(there.ebb, "cancelled")
			footprints = append(footprints, g.footprint())
			g.lives()
		}
		wantNoGrowth(t, footprints)
		g.wantUnharmed(t)
	})
}

// notAMigration is what others send to the port.
func notAMigration() map[string][]byte {
	preamble := append([]byte("ebb-mig"), wire.Version)
	huge := make([]byte, 12)
	huge[0] = 1 // HELLO
	binary.LittleEndian.PutUint32(huge[4:], 1<<32-1)
	wrong := append([]byte{1, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4}, "{}"...)
	return map[string][]byte{
		"garbage":        []byte("GET / HTTP/1.1\r\nHost: here\r\n\r\n"),
		"a huge frame":   append(preamble[:8:8], huge...),
		"a wrong sum":    append(preamble[:8:8], wrong...),
		"half a frame":   append(preamble[:8:8], wrong[:6]...),
		"nothing at all": nil,
	}
}

// sent sends the receiver something that is no migration, and waits until it has said so.
func (r receiver) sent(t *testing.T, data []byte) {
	t.Helper()
	const says = "a connection is not a migration's"
	r.mu.Lock()
	before := strings.Count(r.stderr.String(), says)
	r.mu.Unlock()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.address, "tcp:"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite() // the receiver may have had enough before
	r.saysOften(says, before+1)
}
