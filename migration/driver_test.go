package migration

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// The whole way, with every policy: the guest's memory and state arrive, once.
func TestMigration(t *testing.T) {
	for _, p := range []drain.Policy{drain.Adaptive, drain.Serial, drain.Off} {
		t.Run(p.String(), func(t *testing.T) {
			w := newWorld(t, "vda", "vdb")
			disk := &fakeDisk{world: w, id: "vda"}
			g := newFakeGuest(w, disk, &fakeDisk{world: w, id: "vdb"})
			h := newFakeHost(w, "vda", "vdb")
			var phases []string
			r := w.migrate(t.Context(), g, h, Options{Drain: p, Progress: func(p Progress) { phases = append(phases, p.Phase) }}, nil)
			if r.source != nil || r.dest != nil || r.in == nil {
				t.Fatalf("source %v, destination %v", r.source, r.dest)
			}
			w.atDestination()
			if h.state != g.state || !bytes.Equal(h.memory[0].Bytes, g.memory[0].Bytes) || disk.syncs == 0 {
				t.Errorf("state %s, syncs %d, or other memory", h.state, disk.syncs)
			}
			if len(h.files) != 2 || h.files[0].String() != "first" || h.files[1].Len() != 300<<10 {
				t.Errorf("%d files", len(h.files))
			}
			d := r.report.Downtime
			if d.Total <= 0 || d.Stop+d.Drain+d.LastRAM+d.State+d.Commit > d.Total || !strings.HasPrefix(r.report.Line(), "migrated in ") {
				t.Errorf("%+v: %s", d, r.report.Line())
			}
			var last string
			for _, p := range r.report.Phases {
				last = p.Phase
			}
			if last != "gone" || r.report.Memory.Pages != 63 { // the first is zeroes
				t.Errorf("phases %+v, memory %+v", r.report.Phases, r.report.Memory)
			}
		})
	}
}

// Wherever a side fails before the commit point, the guest goes on at the source as it was, and both say why.
func TestFailuresBeforeCommit(t *testing.T) {
	for _, step := range []string{"prepare", "check", "offer", "reserve", "track", "idle", "sync", "release", "file", "ahead", "take over", "stop", "save", "load"} {
		for _, p := range []drain.Policy{drain.Adaptive, drain.Off} {
			t.Run(step+"/"+p.String(), func(t *testing.T) {
				w := newWorld(t, "vda", "vdb")
				w.breakAt = func(s string) error {
					if s == step {
						return errors.New("it breaks here")
					}
					return nil
				}
				g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"}, &fakeDisk{world: w, id: "vdb"})
				r := w.migrate(t.Context(), g, newFakeHost(w, "vda", "vdb"), Options{Drain: p}, nil)
				if r.source == nil || !strings.Contains(r.source.Error(), "it breaks here") {
					t.Errorf("the source says %v", r.source)
				}
				if refused := step == "prepare"; !refused && (r.dest == nil || !strings.Contains(r.dest.Error(), "it breaks here")) {
					t.Errorf("the destination says %v", r.dest)
				}
				w.atSource()
			})
		}
	}
}

// timed notes its deadlines for reading.
type timed struct {
	net.Conn
	until []time.Time
}

func (c *timed) SetReadDeadline(t time.Time) error {
	c.until = append(c.until, t)
	return c.Conn.SetReadDeadline(t)
}

// Who waits for an answer doesn't do so for ever, and leaves no deadline for what comes later.
func TestAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer := make(chan error, 1)
	go func() {
		there, err := l.Accept()
		if err != nil {
			peer <- err
			return
		}
		defer there.Close()
		p, err := wire.Open(there, patience)
		if err == nil {
			err = p.Send(wire.Joined, nil)
		}
		peer <- err
	}()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	c := &timed{Conn: here}
	w, err := wire.Open(c, patience)
	if err == nil {
		err = answer(w, wire.Joined, nil)
	}
	if err := errors.Join(err, <-peer); err != nil {
		t.Fatal(err)
	}
	if n := len(c.until); n != 2 || c.until[0].IsZero() || !c.until[1].IsZero() {
		t.Errorf("deadlines %v", c.until)
	}
}

// Cancelling works in every phase up to the commit point.
func TestCancel(t *testing.T) {
	for _, step := range []string{"check", "track", "sync", "take over", "stop", "load"} {
		t.Run(step, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			w := newWorld(t, "vda")
			cancelled := make(chan struct{})
			w.breakAt = func(s string) error {
				if s == step {
					cancel()
					if s == "take over" || s == "load" { // at the destination, which knows by the link
						<-cancelled
					}
				}
				return nil
			}
			go func() { // until the source has taken it in
				<-ctx.Done()
				time.AfterFunc(200*time.Millisecond, func() { close(cancelled) })
			}()
			g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"})
			r := w.migrate(ctx, g, newFakeHost(w, "vda"), Options{}, nil)
			if !errors.Is(r.source, errCancelled) {
				t.Errorf("%v", r.source)
			}
			w.atSource()
		})
	}
}

// A disk that hangs: the guest runs on, and at the timeout it is named.
func TestHungDisk(t *testing.T) {
	w := newWorld(t, "vda", "vdb")
	g := newFakeGuest(w, &fakeDisk{world: w, id: "vda", busy: 3}, &fakeDisk{world: w, id: "vdb", busy: 5, hangs: true})
	r := w.migrate(t.Context(), g, newFakeHost(w, "vda", "vdb"),
		Options{Limits: Limits{Downtime: time.Second, Stall: time.Second, Timeout: 2 * time.Second}}, nil)
	if r.source == nil || !strings.Contains(r.source.Error(), "disk vdb has not answered for ") {
		t.Errorf("%v", r.source)
	}
	w.atSource()
	if r.report.Error == "" || len(r.report.Phases) < 3 {
		t.Errorf("%+v", r.report.Phases)
	}
}

// A disk with requests that failed and are kept is named: before anybody is asked, or when it happens.
func TestKept(t *testing.T) {
	failed := errors.New("disk vdb has requests that failed")
	for _, when := range []string{"before", "track", "save ahead"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t, "vda", "vdb")
			disk := &fakeDisk{world: w, id: "vdb"}
			g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"}, disk)
			if when == "before" {
				disk.kept = failed
				if _, err := Send(t.Context(), Options{Address: "nobody is asked"}, g); !errors.Is(err, failed) {
					t.Errorf("%v", err)
				}
				w.atSource()
				return
			}
			h := newFakeHost(w, "vda", "vdb")
			w.breakAt = func(s string) error {
				if s == when {
					w.mu.Lock()
					defer w.mu.Unlock()
					disk.kept = failed
				}
				return nil
			}
			r := w.migrate(t.Context(), g, h, Options{}, nil)
			if !errors.Is(r.source, failed) || r.dest == nil || !strings.Contains(r.dest.Error(), failed.Error()) {
				t.Errorf("source %v, destination %v", r.source, r.dest)
			}
			w.atSource()
		})
	}
}

// A destination that is slow to take over: the hold is given up, and tried again.
func TestMissedHandOver(t *testing.T) {
	w := newWorld(t, "vda")
	var once sync.Once
	w.breakAt = func(s string) error {
		if s == "take over" {
			once.Do(func() { time.Sleep(400 * time.Millisecond) }) // that is its slowness
		}
		return nil
	}
	g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"})
	r := w.migrate(t.Context(), g, newFakeHost(w, "vda"),
		Options{Limits: Limits{Downtime: time.Second, Stall: 300 * time.Millisecond, Timeout: patience}}, nil)
	if r.source != nil || len(r.report.Retries) != 1 {
		t.Fatalf("%v, retries %q", r.source, r.report.Retries)
	}
	w.atDestination()
}

// A stop that takes too long is undone, with the guest running here meanwhile, and tried again.
func TestLateStop(t *testing.T) {
	for name, limits := range map[string]Limits{
		"downtime": {Downtime: 300 * time.Millisecond, Stall: patience},
		"stall":    {Downtime: patience, Stall: 600 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "vda")
			var once sync.Once
			w.breakAt = func(s string) error {
				if s == "save" {
					once.Do(func() { time.Sleep(700 * time.Millisecond) }) // that is its slowness
				}
				return nil
			}
			limits.Timeout = patience
			r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{Limits: limits}, nil)
			if r.source != nil || len(r.report.Retries) == 0 || r.report.Retries[0] != "the last of memory and state" {
				t.Fatalf("%v, retries %q", r.source, r.report.Retries)
			}
			if w.resumed == 0 {
				t.Error("the guest did not go on meanwhile")
			}
			w.atDestination()
		})
	}
}

// Locks that come back late, as those that an NFS server keeps for a host that died, are waited for, and the user is told.
func TestLocksComeBackLate(t *testing.T) {
	const lease = 90 * time.Second
	if reclaimLimit <= lease {
		t.Errorf("the limit is %v, within a lease", reclaimLimit)
	}
	defer func(before time.Duration) { slowReclaim = before }(slowReclaim)
	slowReclaim = 0
	w := newWorld(t, "vda")
	told := make(chan struct{})
	w.breakAt = func(s string) error {
		switch s {
		case "load":
			return errors.New("it breaks here")
		case "reclaim":
			select {
			case <-told:
			default:
				return errors.New("image is locked")
			}
		}
		return nil
	}
	var once sync.Once
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{Progress: func(p Progress) {
		if strings.Contains(p.Verdict, "waiting up to 2m0s for the locks of images that the destination had: disk vda") {
			once.Do(func() { close(told) })
		}
	}}, nil)
	if r.source == nil || !strings.Contains(r.source.Error(), "it breaks here") {
		t.Errorf("the source says %v", r.source)
	}
	w.atSource()
}

// For a guest that is over they are not waited for that long.
func TestLocksOfAGuestThatIsOver(t *testing.T) {
	defer func(before time.Duration) { quickReclaim = before }(quickReclaim)
	quickReclaim = 0
	w := newWorld(t, "vda")
	w.breakAt = func(s string) error {
		switch s {
		case "load":
			close(w.over)
			return errors.New("it breaks here")
		case "reclaim":
			return errors.New("image is locked")
		}
		return nil
	}
	g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"})
	if r := w.migrate(t.Context(), g, newFakeHost(w, "vda"), Options{}, nil); r.source == nil || !strings.Contains(r.source.Error(), "disk vda: image is locked") {
		t.Errorf("the source says %v", r.source)
	}
}

// An image that somebody else took while it was nobody's: the guest must not go on without it.
func TestLostImage(t *testing.T) {
	w := newWorld(t, "vda")
	w.breakAt = func(s string) error {
		switch s {
		case "load":
			return errors.New("it breaks here")
		case "reclaim":
			return errors.New("image is locked")
		}
		return nil
	}
	defer func(before time.Duration) { reclaimLimit = before }(reclaimLimit)
	reclaimLimit = 100 * time.Millisecond
	g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"})
	r := w.migrate(t.Context(), g, newFakeHost(w, "vda"), Options{}, nil)
	if r.source == nil || w.runner != "" || !strings.Contains(w.paused, "disk vda: image is locked") {
		t.Errorf("%v; it runs at %q, paused %q", r.source, w.runner, w.paused)
	}
	if w.windows["vda"] != 0 {
		t.Errorf("the disk's window is %d", w.windows["vda"])
	}
	w.check()
}

// A load that is over too late is undone, and the next stop has another.
func TestLateLoad(t *testing.T) {
	w := newWorld(t, "vda")
	var late atomic.Bool
	w.breakAt = func(s string) error {
		if s == "load" && !late.Load() {
			w.goesOn()
			late.Store(true)
		}
		return nil
	}
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{
		Limits: Limits{Downtime: 10 * time.Second, Stall: 500 * time.Millisecond, Timeout: patience},
	}, nil)
	if r.source != nil || r.dest != nil || !slices.Contains(r.report.Retries, "loading the state") || !late.Load() {
		t.Errorf("%v, %v, retries %q", r.source, r.dest, r.report.Retries)
	}
	w.atDestination()
}

// Loading a state is expected to take as long as saving it: one that took most of --downtime isn't sent.
func TestSlowSave(t *testing.T) {
	const downtime = 300 * time.Millisecond
	w := newWorld(t, "vda")
	var saves, slowLoads atomic.Int32
	w.breakAt = func(s string) error {
		switch {
		case s == "save" && saves.Add(1) == 1:
			time.Sleep(downtime * 2 / 3) // it is slow
		case s == "load" && saves.Load() == 1:
			slowLoads.Add(1)
		}
		return nil
	}
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{
		Limits: Limits{Downtime: downtime, Stall: 10 * time.Second, Timeout: patience},
	}, nil)
	if r.source != nil || r.dest != nil || !slices.Contains(r.report.Retries, lastMemory) || slowLoads.Load() > 0 {
		t.Errorf("%v, %v, retries %q, %d slow states loaded", r.source, r.dest, r.report.Retries, slowLoads.Load())
	}
	w.atDestination()
}

// goesOn returns when the guest runs at the source, which may have stopped it.
func (w *world) goesOn() {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		w.mu.Lock()
		runs := w.runner == "source"
		w.mu.Unlock()
		if runs {
			return
		}
	}
	w.t.Error("the guest stays stopped")
}
