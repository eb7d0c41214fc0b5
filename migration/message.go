package migration

import (
	"encoding/json"
	"time"

	"github.com/ebb-vmm/ebb/migration/ram"
)

// hello is what a source asks for: the payload of HELLO.
type hello struct {
	Name    string          `json:"name"`    // the VM's
	Memory  []memoryRange   `json:"memory"`  // its regions
	Streams int             `json:"streams"` // connections for memory
	Files   []fileInfo      `json:"files"`   // that come in FILE frames, one after another
	Machine json.RawMessage `json:"machine"` // what the destination's must be like
}

type fileInfo struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

type memoryRange struct {
	GPA   uint64 `json:"gpa"`
	Bytes uint64 `json:"bytes"`
}

// accept is the payload of ACCEPT.
type accept struct {
	Session string          `json:"session"` // to be named by the connections for memory
	Machine json.RawMessage `json:"machine"` // what the source wants to know of the destination's
}

// join is the payload of JOIN.
type join struct {
	Session string `json:"session"`
	Stream  int    `json:"stream"`
}

// joined is the payload of JOINED.
type joined struct {
	Realtime int64 `json:"realtime_ns"` // CLOCK_REALTIME of the destination, since 1970
}

// runs is the payload of RUNNING.
type runs struct {
	Resume time.Duration `json:"resume_ns"` // from COMMIT to the first vCPU
}

const (
	// MaxStreams is the most connections for memory.
	MaxStreams = 16

	// DefaultStreams is taken where none are asked for.
	DefaultStreams = 2
)

func ranges(regions []ram.Region) (list []memoryRange) {
	for _, r := range regions {
		list = append(list, memoryRange{r.GPA, uint64(len(r.Bytes))})
	}
	return list
}
