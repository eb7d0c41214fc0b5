package machine

import (
	"os"
	"path/filepath"
	"testing"
)

func (r *rig) wantState(want State) {
	r.Helper()
	if got, reason := r.State(); got != want || reason != "" {
		r.Errorf("the machine is %v (%q), want %v", got, reason, want)
	}
}

func TestState(t *testing.T) {
	image := filepath.Join(t.TempDir(), "a.img")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	r := prepare(t, Config{Disks: []Disk{{ID: "data", Path: image}}}, count)
	r.wantState(Starting)
	r.run()
	r.moves(counterAddr, 0)
	r.wantState(Running)
	r.pause()
	r.wantState(Paused)
	r.resume()
	r.wantState(Running)
	if d := r.Disks(); len(d) != 1 || d[0].ID != "data" || d[0].Path != image {
		t.Errorf("disks are %+v", d)
	}
	if s := r.EngineStats(); s.Capacity == 0 {
		t.Errorf("the engine says %+v", s)
	}
	r.Stop()
	r.wantState(Ending)
	r.wait()
	r.wantState(Ending)
}

// A guest that ended by itself is no guest that starts.
func TestStateAfterPowerOff(t *testing.T) {
	r := start(t, Config{}, powerOff, spin)
	r.wait()
	r.wantState(Ending)
}
