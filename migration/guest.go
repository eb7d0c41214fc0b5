package migration

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/ram"
)

// Guest is a running machine at the source. Its methods are called from several goroutines, but never
// one method twice at a time. None but those with a context wait for a disk.
type Guest interface {
	ram.Log
	Regions() []ram.Region
	// Track begins to keep the log, in which all pages are dirty then, or ends it.
	Track(on bool) error

	// Describe says what the destination must be like.
	Describe() (json.RawMessage, error)
	// Check is given what the destination says of itself, and refuses what can't work.
	Check(destination json.RawMessage) error

	Disks() []Disk

	// Files are what the guest needs when it boots again. They are closed when they are sent.
	Files() []File

	// SaveAhead returns what the destination can prepare while the guest runs here.
	SaveAhead() json.RawMessage

	Throttle(percent int) // slows the vCPUs down
	Stop() error          // returns when no vCPU runs
	Resume()
	Save() ([]byte, error) // the state of a stopped guest with drained disks, all but memory

	Over() <-chan struct{} // closed when the guest ends by itself
	Leave()                // it runs elsewhere now
	Pause(reason string)   // it must not run, or not go on, until the user says so
}

// File is one file.
type File struct {
	Name    string
	Size    int64 // bytes
	Content io.ReadCloser
}

// Disk is one of its disks.
type Disk interface {
	ID() string
	Sample() drain.Sample // since the last call
	SyncDebt() uint64     // bytes written since the last sync
	Kept() error          // says that requests failed and are kept, to be carried out again: they can't migrate. nil: none

	SetWindow(n int)                // most requests in flight; 0: none is taken
	Idle(ctx context.Context) error // returns when nothing is in flight
	Sync(ctx context.Context) error // everything written is on stable storage
	WriteBack(ctx context.Context) error

	// The image's two locks; see package blk.
	OfferReservation() error
	ReclaimReservation() error
	ReleaseOwner() error
	ReclaimOwner() error
}

// Host makes machines at the destination.
type Host interface {
	// Prepare makes a machine for a guest that may come, in memory of these ranges, or says in one
	// sentence why it can't be. Nothing is changed on any disk.
	Prepare(name string, memory []ram.Region, machine json.RawMessage) (Incoming, error)
}

// Incoming is a machine at the destination, for a guest that isn't there yet.
type Incoming interface {
	Regions() []ram.Region
	Describe() json.RawMessage // what the source checks

	// File takes one of Guest.Files: all of it is written before Prepare is called.
	File(name string, size int64) (io.Writer, error)

	Reserve() error  // take the images' reservations
	TakeOver() error // own the images: open them, with nothing stale in any cache
	GiveBack() error // undo that, if it was done: also instead of Run

	Prepare(ahead json.RawMessage) error // what takes time and needs no stop
	// Load does everything that can fail. This host's CLOCK_REALTIME is ahead of the source's by as much.
	Load(machine []byte, ahead time.Duration) error
	Unload()               // undo that, if it returned nil: it may come again
	Over() <-chan struct{} // closed when somebody ends the machine
	Run()                  // what can't
	Discard()              // nothing of it remains
}
