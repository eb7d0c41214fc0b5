package migration

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
)

// The --stall that is advised leaves the drain what it needs.
func TestAdvisedStall(t *testing.T) {
	for budget := 10 * time.Millisecond; budget < 2*time.Second; budget += 10 * time.Millisecond {
		_, option, ok := strings.Cut(verdict(errors.Join(&drain.Shortfall{Disk: "vda", Needs: budget, Window: 1, Budget: budget})), "--stall ")
		option, _, _ = strings.Cut(option, " ")
		stall, err := time.ParseDuration(option)
		if !ok || err != nil {
			t.Fatalf("%q, %v", option, err)
		}
		if left := time.Duration(drainShare * float64(stall)); left < budget || left > budget+10*time.Millisecond {
			t.Errorf("--stall %v leaves %v for a drain that needs %v", stall, left, budget)
		}
	}
}

// The source's guest waits for its images, and not for what takes a machine at the destination apart.
func TestImagesComeBackFirst(t *testing.T) {
	w := newWorld(t, "vda")
	discards := 0
	w.breakAt = func(step string) error {
		switch step {
		case "load":
			return errors.New("no")
		case "discard":
			w.mu.Lock()
			defer w.mu.Unlock()
			if discards++; w.owner["vda"] == "destination" {
				t.Error("the destination has the image yet when it is taken apart")
			}
		}
		return nil
	}
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{}, nil)
	if r.source == nil || discards != 1 {
		t.Errorf("%v, %d machines taken apart", r.source, discards)
	}
	w.atSource()
}

// A guest whose images can't be had back is paused, and its user told.
func TestPausedIsSaid(t *testing.T) {
	s := NewSource(Limits{Downtime: time.Second, Stall: time.Second})
	s.Step(Event{Kind: Begin})
	s.Step(Event{Kind: Failed, Err: errors.New("the link is lost")})
	acts := s.Step(Event{Kind: OwnerLost, Err: errors.New("disk vda is locked")})
	if len(acts) != 1 || acts[0].Do != PauseGuest || s.Err().Error() != "the link is lost; and the guest is paused here: disk vda is locked" {
		t.Errorf("%v, %v", acts, s.Err())
	}
}
