package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hung is how long a test waits for what takes milliseconds.
const hung = 60 * time.Second

// fakeVM records what it is asked for.
type fakeVM struct {
	mu        sync.Mutex
	calls     []string
	inside    int // calls that have not returned
	state     string
	migrating bool

	pauseErr error
	pausing  chan struct{} // Pause sends, then waits for its context; nil: it returns at once
	removing chan struct{} // likewise RemoveDisk
	adding   chan struct{} // likewise AddDisk, and a resize of the disk hung
	letGo    chan struct{} // closed: RemoveDisk need not wait any more
	migrate  func(context.Context, func(json.RawMessage)) (json.RawMessage, error)
}

// called notes a call until the function it returns is called.
func (f *fakeVM) called(what string) (returned func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
	f.inside++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.inside--
	}
}

func (f *fakeVM) busy() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inside
}

func (f *fakeVM) has(what string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.calls, what)
}

func (f *fakeVM) Info() Info {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == "" {
		f.state = "running"
	}
	return Info{State: f.state, VCPUs: 2, Memory: 64 << 20, Disks: []string{"vda"}, Migrating: f.migrating}
}

func (f *fakeVM) Stats() Stats {
	defer f.called("stats")()
	held := 0
	return Stats{
		Engine: EngineStats{Kind: "fake", Capacity: 64, Demand: 32, InFlight: 3, Lent: 1, WrittenOff: 2, Enters: 4},
		Disks: []DiskStats{{
			ID: "vda", InFlight: 3, Window: &held, Windows: map[string]int{"pause": 0, "drain": 8}, Reserve: 4, Lent: 1,
			GraceP95: time.Millisecond,
			Read:     ClassStats{Requests: 1, Bytes: 512, Errors: 1, Latency: Latency{P50: 1, P99: 2, Max: 3}},
		}},
	}
}

func (f *fakeVM) Pause(ctx context.Context) error {
	defer f.called("pause")()
	if f.pauseErr != nil {
		return f.pauseErr
	}
	return wait(ctx, f.pausing, nil)
}

func (f *fakeVM) Resume(bool) error  { defer f.called("resume")(); return nil }
func (f *fakeVM) PowerButton() error { defer f.called("button")(); return nil }
func (f *fakeVM) Kill()              { defer f.called("kill")() }

func (f *fakeVM) AddDisk(ctx context.Context, keys, dir string) (string, error) {
	defer f.called("add " + keys + " in " + dir)()
	if keys == "" {
		return "", Refuse(http.StatusBadRequest, "no keys; write path=FILE")
	}
	return "vdb", wait(ctx, f.adding, nil)
}

func (f *fakeVM) RemoveDisk(ctx context.Context, id string) error {
	defer f.called("remove " + id)()
	if id == "broken" {
		return errors.New("it failed")
	}
	return wait(ctx, f.removing, f.letGo)
}

func (f *fakeVM) Migrate(ctx context.Context, m Migration, progress func(json.RawMessage)) (json.RawMessage, error) {
	defer f.called("migrate to " + m.Address)()
	return f.migrate(ctx, progress)
}

func (f *fakeVM) ResizeDisk(ctx context.Context, id string, size uint64) error {
	defer f.called("resize " + id)()
	if id == "hung" {
		return wait(ctx, f.adding, nil)
	}
	return Refuse(http.StatusNotFound, "there is no disk %s of %d bytes", id, size)
}

func wait(ctx context.Context, entered, enough chan struct{}) error {
	if entered == nil {
		return nil
	}
	entered <- struct{}{}
	select {
	case <-enough:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// within fails the test with all goroutines' stacks if do doesn't return in time.
func within(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(hung):
		stacks := make([]byte, 1<<20)
		t.Fatalf("%s takes more than %v\n%s", what, hung, stacks[:runtime.Stack(stacks, true)])
	}
}

// until waits for what has no event of its own.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, what, func() {
		for !ok() {
			runtime.Gosched()
		}
	})
}

// rig is a served place and a client of it.
type rig struct {
	place  *Place
	server *Server
	vm     *fakeVM
	client *Client
}

func newRig(t *testing.T, vm *fakeVM) *rig {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := &rig{place: claim(t, "web", ""), vm: vm, client: find(t, "web")}
	r.server = r.place.Serve(vm, slog.New(slog.NewTextHandler(t.Output(), nil)))
	t.Cleanup(func() { within(t, "Release", r.place.Release) }) // before find's
	return r
}

func claim(t *testing.T, name, path string) *Place {
	t.Helper()
	p, err := Claim(name, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Release)
	return p
}

func find(t *testing.T, name string) *Client {
	t.Helper()
	c, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func wantError(t *testing.T, err error, status int, sentence string) {
	t.Helper()
	e := (*Error)(nil)
	if !errors.As(err, &e) || e.Status != status || e.Message != sentence {
		t.Errorf("error %#v (%v), want %d: %s", err, err, status, sentence)
	}
}
