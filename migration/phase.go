package migration

// Phase is how far a migration is, at its source.
//
//	       Begin          Accepted            RAM fits             disks fit, RAM fits
//	Run ─────────▶ Setup ──────────▶ Precopy ──────────▶ Ebb ◀──────────────────────▶ Hold
//	 ▲              │                   │                 │          missed             │ in flight 0, synced,
//	 │              │                   │                 │ off, forced                 │ destination ready, RAM fits
//	 │              ▼                   ▼                 ▼                             ▼
//	 └──────── any failure, cancel, timeout ◀──────────────────────────────────────── Stop ──▶ Hold, and from there to
//	                                                                                    │      Ebb: late
//	                                                                                    │ Loaded, LastSent
//	                                     Gone ◀── Running ── Commit ◀───────────────────┘
//	                                                           │ link lost: neither side runs, the user decides
//
// The guest runs in every phase up to Hold, at the source; in Stop nowhere; from Commit on at the
// destination, or nowhere. Drawn at the left: whatever fails before Commit, the guest goes on at
// the source as if nothing had happened.
type Phase uint8

// The phases.
const (
	Run     Phase = iota // no migration: before one, and after one that failed
	Setup                // both sides are asked whether it can work
	Precopy              // memory is copied, the disks run as always
	Ebb                  // and the disks' windows shrink until a drain would be short
	Hold                 // and nothing is taken from the guest's queues any more; what is in flight finishes
	Stop                 // the vCPUs stand; the rest of memory and the devices' state go over
	Commit               // the destination was told that the guest is its own
	Gone                 // and it runs there
)

// String returns the phase's name as reports spell it.
func (p Phase) String() string {
	return [...]string{"run", "setup", "precopy", "ebb", "hold", "stop", "commit", "gone"}[p]
}
