package migration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ebb-vmm/ebb/migration/ram"
)

// hello is what a source asks for: the payload of HELLO.
type hello struct {
	Name    string           `json:"name"`    // the VM's
	Memory  few[memoryRange] `json:"memory"`  // its regions
	Streams int              `json:"streams"` // connections for memory
	Files   few[fileInfo]    `json:"files"`   // that come in FILE frames, one after another
	Machine json.RawMessage  `json:"machine"` // what the destination's must be like
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

// few is a list that is short in a message of ours: of anybody's, no more is decoded than maxFew elements.
type few[T any] []T

const maxFew = 16

// UnmarshalJSON implements json.Unmarshaler.
func (f *few[T]) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	switch begin, err := d.Token(); {
	case err != nil:
		return err
	case begin == nil: // null
		return nil
	case begin != json.Delim('['):
		return errors.New("a list was expected")
	}
	for d.More() {
		var element T
		if err := d.Decode(&element); err != nil {
			return err
		}
		if *f = append(*f, element); len(*f) > maxFew {
			return fmt.Errorf("a list of more than %d elements", maxFew)
		}
	}
	return nil
}
