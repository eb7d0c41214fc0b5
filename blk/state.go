package blk

import (
	"encoding/json"
	"fmt"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
)

// State is what a disk carries to another host beside what its transport does.
type State struct {
	Writeback bool // the configuration field of that name (5.2.5)

	// Tokens is what the disk's own limits have left, or had when its driver went; nil: there are none, or was no driver. Like a
	// clock, it is another a moment later.
	Tokens *aio.Tokens `json:",omitempty"`
}

var _ virtio.Saver = (*Device)(nil)

// SaveState implements virtio.Saver.
func (d *Device) SaveState() json.RawMessage {
	s := State{Writeback: d.writeback.Load(), Tokens: d.image.tokens.Load()}
	if port := d.port.Load(); port != nil && d.limits != (aio.Limits{}) {
		t := port.Tokens()
		s.Tokens = &t
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a bool and finite numbers
	}
	return b
}

// LoadState implements virtio.Saver.
func (d *Device) LoadState(b json.RawMessage) error {
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("disk %s: %w", d.id, err)
	}
	if !s.Writeback && d.features.Load()&featConfigWCE == 0 {
		return fmt.Errorf("disk %s: writethrough, which the driver can't have chosen", d.id)
	}
	if s.Tokens != nil {
		if err := s.Tokens.Validate(); err != nil {
			return fmt.Errorf("disk %s: %w", d.id, err)
		}
	}
	d.writeback.Store(s.Writeback)
	d.setDurable()
	d.image.tokens.Store(s.Tokens)
	return nil
}
