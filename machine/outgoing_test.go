package machine

import "testing"

// What a migration does to the vCPUs lets none go on that a disk's failure stops, not even while that still waits for other disks.
func TestMigrationLeavesFailedGuestStopped(t *testing.T) {
	for name, m := range map[string]*Machine{
		"stopping": {reason: "disk vda failed a write"},
		"stopped":  {reason: "disk vda failed a write", paused: true},
		"running":  {},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate()
			o := &Outgoing{m: m, hw: &hardware{gate: g}}
			for what, do := range map[string]func(){"Resume": o.Resume, "End": o.End} {
				do()
				if want := m.reason != ""; (g.state == paused) != want {
					t.Errorf("after %s the gate is at %d", what, g.state)
				}
			}
		})
	}
}
