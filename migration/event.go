package migration

import (
	"errors"
	"time"
)

var errCancelled = errors.New("cancelled")

// Event is something that happened, at a time on any clock that only goes forward.
type Event struct {
	Kind EventKind
	Now  time.Duration

	Trip       time.Duration // Accepted: of a message there and back
	Sent, Left uint64        // PassDone: bytes that were sent, and that are dirty again
	Wire       uint64        // PassDone: bytes on the wire
	Took       time.Duration // PassDone: for those; LastOnWay: to save the state
	Drain      Drain         // Tick
	Err        error         // Failed, OwnerLost
}

// EventKind is what happened.
type EventKind uint8

// The events. Those without a comment end the action of a similar name.
const (
	Begin            EventKind = iota // the user wants a migration
	Accepted                          // the destination can take it, and has the reservations of the images
	PassDone                          // SendPass
	Tick                              // time has passed: a few milliseconds
	Drained                           // CloseDisks: nothing is in flight
	DestinationReady                  // HandOver: the destination owns the images
	Returned                          // TakeBack: the source does again
	Stopped                           // StopGuest
	LastOnWay                         // SendLast, before its end: the state is saved, and only the destination's answer is missing
	LastSent                          // SendLast
	Loaded                            // SendState: nothing at the destination can fail any more
	Runs                              // SendCommit: the guest runs there
	Failed                            // the link, the other side, an action, or the guest's end
	Aborted                           // by the destination, which says so: it won't run the guest
	Cancelled                         // by the user
	Reclaimed                         // Reclaim: an owner lock is back, or was here all the time
	OwnerLost                         // Reclaim, TakeBack: an image is somebody else's
	Settled                           // after either: so are the reservations, or nobody waits for them any longer
)

// Drain is how far the drain of the disks is.
type Drain struct {
	Ready   bool   // in Ebb: one that began now would be short, on every disk
	Drained bool   // in Hold: every disk is closed, and nothing is in flight
	Missed  bool   // in Hold: a disk takes longer than it may; they are open again
	Off     bool   // in Hold: given up before a disk had to wait, because one began to flush
	Verdict string // why it is never ready, in one sentence; empty: nothing speaks against it
	Kept    error  // requests failed and are kept, so that it can't work
}

// Action is something to be done. Those that say so end in an event.
type Action struct {
	Do      ActionKind
	After   time.Duration // SendPass: not before
	Percent int           // Throttle
	Err     error         // Abandon, Strand, PauseGuest
}

// ActionKind is what is to be done.
type ActionKind uint8

// The actions.
const (
	Connect     ActionKind = iota // ask the destination, give it the reservations → Accepted
	TrackMemory                   // keep the dirty log from now on
	SendPass                      // everything that is dirty → PassDone
	HurryPass                     // the next pass need not wait any longer
	Throttle                      // slow the vCPUs down by so many percent; 0: not at all
	BeginDrain                    // let the disks' windows follow the drain policy
	HoldDisks                     // close them one after another, so that all are empty at the same time
	CloseDisks                    // close all, the vCPUs stand, and wait however long it takes → Drained
	HandOver                      // sync the images and give their owner locks away → DestinationReady
	TakeBack                      // get the owner locks back → Returned
	OpenDisks                     // windows as before Hold; in Run as before the migration, of the disks whose owner locks are here
	StopGuest                     // the vCPUs → Stopped
	SendLast                      // save the state; the last pass → LastOnWay, LastSent
	SendState                     // the state that was saved, behind the last of memory → Loaded
	SendCommit                    // → Runs
	Leave                         // the guest is gone: end
	Abandon                       // tell the destination, close everything that belongs to the migration
	ResumeGuest                   // let the vCPUs go on; the disks stay as they are
	Reclaim                       // get every lock back → Reclaimed, more than once, and OwnerLost if one isn't; then Settled
	PauseGuest                    // it can't run here without that image
	Strand                        // nobody knows which side has it: stay stopped, tell the user
)
