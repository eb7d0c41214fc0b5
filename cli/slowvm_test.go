package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/cli/control"
)

// slowVM is a VM whose disks take their time.
type slowVM struct {
	mu     sync.Mutex
	killed bool
	moving bool
	calls  []string
	remove chan struct{} // RemoveDisk returns when it is closed
}

func (s *slowVM) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
}

func (s *slowVM) Info() control.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed {
		return control.Info{State: control.StateEnding}
	}
	return control.Info{State: "running", Migrating: s.moving}
}

func (s *slowVM) Stats() control.Stats {
	return control.Stats{Disks: []control.DiskStats{{ID: "vda", InFlight: 3}, {ID: "vdb"}, {ID: "vdc", InFlight: 1}}}
}
func (s *slowVM) Pause(context.Context) error { return nil }
func (s *slowVM) Resume(bool) error           { return nil }
func (s *slowVM) PowerButton() error          { return nil }

func (s *slowVM) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed = true
}

func (s *slowVM) AddDisk(_ context.Context, keys, dir string) (string, error) {
	s.note("add %s in %s", keys, dir)
	return "vdx", nil
}

func (s *slowVM) RemoveDisk(ctx context.Context, id string) error {
	s.note("remove %s", id)
	select {
	case <-s.remove:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("disk %s is not removed: the guest holds it; unmount it there and try again (%w)", id, context.Cause(ctx))
	}
}

func (s *slowVM) ResizeDisk(_ context.Context, id string, size uint64) error {
	s.note("resize %s %d", id, size)
	return nil
}

func (s *slowVM) Migrate(context.Context, control.Migration, func(json.RawMessage)) (json.RawMessage, error) {
	return nil, errors.New("no")
}

// serveSlow makes this process the VM web.
func serveSlow(t *testing.T) (vm *slowVM, runtime string, end func()) {
	t.Helper()
	runtime = t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	place := must[*control.Place](t)(control.Claim("web", ""))
	t.Cleanup(place.Release)
	vm = &slowVM{remove: make(chan struct{})}
	server := place.Serve(vm, slog.New(slog.DiscardHandler))
	return vm, runtime, func() { server.Finish("stopped"); place.Release() }
}

// A disk that doesn't answer holds up the end: who waits is told.
func TestKillWaitsForDisks(t *testing.T) {
	_, runtime, end := serveSlow(t)
	p := setup{runtime: runtime}.start(t, "kill", "web", "--timeout", "1s")
	p.wantExit(1)
	p.wantComplaint("have not let go within 1s", "3 of disk vda, 1 of disk vdc", "`ebb kill web`")
	p = setup{runtime: runtime}.start(t, "kill", "web")
	p.await("the reason", p.stderr.has("ebb: the guest has ended; waiting for its requests in flight: 3 of disk vda, 1 of disk vdc\n"))
	end()
	p.wantExit(0)
}

// A cancelled migration that isn't over, because the destination has locks, is not said to be.
func TestCancelledButNotOver(t *testing.T) {
	defer func(before time.Duration) { cancelLimit = before }(cancelLimit)
	cancelLimit = 0
	vm, _, _ := serveSlow(t)
	client := must[*control.Client](t)(control.Find("web"))
	defer client.Close()
	for _, c := range []struct {
		moving bool
		want   string
	}{{true, "may still have locks"}, {false, "the guest goes on here (running)"}} {
		vm.mu.Lock()
		vm.moving = c.moving
		vm.mu.Unlock()
		if err := cancelled(t.Context(), client); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("migrating %v: %v, want %q", c.moving, err, c.want)
		}
	}
}

func TestDiskCommands(t *testing.T) {
	vm, runtime, _ := serveSlow(t)
	dir := t.TempDir()
	s := setup{runtime: runtime, dir: dir}
	wantOutput(t, setupExit(t, s, 0, "disk", "add", "web", "path=b.img,id=vdx"), `vdx\n`)
	setupExit(t, s, 0, "disk", "resize", "web", "vda", "1.5G")
	p := s.start(t, "disk", "remove", "web", "vda")
	p.await("the reason", p.stderr.has("ebb: waiting for the guest to let go of disk vda, and for its storage to answer 3 requests in flight; "+
		"until then the disk and its image's lock stay\n"))
	setupExit(t, s, 1, "disk", "remove", "web", "vda", "--timeout", "1ms").wantComplaint("disk vda is not removed", "after 1ms") // the VM says what it waited for
	close(vm.remove)
	p.wantExit(0)
	want := []string{"add path=b.img,id=vdx in " + dir, "resize vda 1610612736", "remove vda", "remove vda"}
	if !slices.Equal(vm.calls, want) {
		t.Errorf("calls %q, want %q", vm.calls, want)
	}
}
