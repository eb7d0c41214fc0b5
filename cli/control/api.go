package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// VM is what a Server gives its clients to control. Its methods are called from
// many goroutines at once. An error is one sentence; Refuse gives it an HTTP
// status, else it is an internal failure.
type VM interface {
	// Info describes the VM. The server fills in name, process and uptime.
	Info() Info
	// Stats doesn't wait for the guest, nor for a disk. The server fills in the uptime.
	Stats() Stats

	// Pause returns nil when no vCPU runs and no disk request is in flight. If ctx
	// ends first the guest goes on, and the error wraps ctx's.
	Pause(ctx context.Context) error
	// Resume lets a paused guest go on; with force also one that a migration has left standing.
	Resume(force bool) error
	PowerButton() error
	Kill()

	// AddDisk attaches a disk. keys are --disk's; a path that is not absolute is
	// relative to dir. ctx bounds the wait for its storage.
	AddDisk(ctx context.Context, keys, dir string) (id string, err error)
	// RemoveDisk returns when the guest has let go of the disk. If ctx ends first the disk stays,
	// and the error says what was waited for and wraps ctx's cause.
	RemoveDisk(ctx context.Context, id string) error
	// ResizeDisk makes the disk size bytes long. ctx bounds the wait for its storage.
	ResizeDisk(ctx context.Context, id string, size uint64) error

	// Migrate moves the guest, and returns a report, with or without an error. ctx cancels it.
	// An error without a report is of what was asked for. progress must not block.
	Migrate(ctx context.Context, m Migration, progress func(json.RawMessage)) (report json.RawMessage, err error)
}

// Resumption says how to resume.
type Resumption struct {
	Force bool `json:"force"`
}

// Error is an answer other than success.
type Error struct {
	Status  int    // of HTTP
	Message string // one sentence
}

func (e *Error) Error() string { return e.Message }

// Refuse makes an error with an HTTP status, for a VM's methods.
func Refuse(status int, format string, args ...any) error {
	return &Error{status, fmt.Errorf(format, args...).Error()}
}

func statusOf(err error) int {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Status
	}
	return http.StatusInternalServerError
}

// States that clients know of.
const (
	StatePaused = "paused"
	StateEnding = "ending" // the guest is over; what may remain are disk requests in flight
)

// Info describes a VM.
type Info struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"`
	State  string `json:"state"` // starting, running, paused, ending
	Reason string `json:"reason,omitempty"`
	// Migrating: it is on its way to another host.
	Migrating bool     `json:"migrating,omitempty"`
	VCPUs     int      `json:"vcpus"`
	Memory    uint64   `json:"memory_bytes"`
	Disks     []string `json:"disks"` // ids
	Uptime    float64  `json:"uptime_seconds"`
}

// Stats is what a VM's disks do, and the engine they share. Counters begin when
// the guest's driver starts using a disk.
type Stats struct {
	Uptime float64     `json:"uptime_seconds"` // when the figures were read
	Engine EngineStats `json:"engine"`
	Disks  []DiskStats `json:"disks"`
}

// EngineStats is the engine's part, in requests.
type EngineStats struct {
	Kind       string `json:"kind"`        // uring, native, threads
	Capacity   int    `json:"capacity"`    // most in flight, all disks together
	Demand     int    `json:"demand"`      // most that the disks' queues hold
	InFlight   int    `json:"in_flight"`   // popped and not completed
	Lent       int    `json:"lent"`        // of those, used by disks beyond their shares
	WrittenOff int    `json:"written_off"` // of those, not counted because their disks are slow or don't answer
	Enters     uint64 `json:"enters"`      // times the engine's thread entered the kernel
}

// DiskStats is one disk's part.
type DiskStats struct {
	ID         string         `json:"id"`
	Demand     int            `json:"demand"`            // most that its queues hold
	InFlight   int            `json:"in_flight"`         // requests
	Window     *int           `json:"window"`            // most that may be in flight; nil: no bound
	Windows    map[string]int `json:"windows,omitempty"` // the bounds by their causes; the least is the window
	Reserve    int            `json:"reserve"`           // requests that are this disk's whatever others do
	Share      int            `json:"share"`             // requests it may have before others have more than theirs
	Lent       int            `json:"lent"`              // requests in flight beyond the share
	WrittenOff int            `json:"written_off"`       // requests in flight that the engine doesn't count
	Kept       int            `json:"kept"`              // requests that failed and wait for resume
	Lost       bool           `json:"lost"`              // the host could not write what it had cached: flushes fail
	GraceP95   time.Duration  `json:"grace_p95_ns"`      // how long a drain takes, 95 times of 100
	Read       ClassStats     `json:"read"`
	Write      ClassStats     `json:"write"`
	Long       ClassStats     `json:"long"` // flush, discard, write-zeroes
}

// ClassStats counts completed requests of one class.
type ClassStats struct {
	Requests uint64  `json:"requests"` // with errors too
	Bytes    uint64  `json:"bytes"`
	Errors   uint64  `json:"errors"`
	Latency  Latency `json:"latency"`
}

// Latency is from submission to completion.
type Latency struct {
	P50  time.Duration `json:"p50_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p999_ns"`
	Max  time.Duration `json:"max_ns"`
}

// DiskToAdd asks for a disk.
type DiskToAdd struct {
	Disk string `json:"disk"`          // keys as of --disk
	Dir  string `json:"dir,omitempty"` // what a relative path is relative to
}

// Added is the answer.
type Added struct {
	ID string `json:"id"`
}

// Removal says how to remove a disk.
type Removal struct {
	Timeout time.Duration `json:"timeout_ns"` // after which the disk stays; 0: none
}

// DiskSize asks for a size.
type DiskSize struct {
	Size uint64 `json:"size_bytes"`
}

// End is how the guest ended.
type End struct {
	End string `json:"end"` // powered off, reset, panicked, stopped, failed
}

// EndPoweredOff is End's value after what `ebb stop` asks for.
const EndPoweredOff = "powered off"
