package blk

import (
	"encoding/json"
	"fmt"

	"github.com/ebb-vmm/ebb/virtio"
)

// State is what a disk carries to another host beside what its transport does.
type State struct {
	Writeback bool // the configuration field of that name (5.2.5)
}

var _ virtio.Saver = (*Device)(nil)

// SaveState implements virtio.Saver.
func (d *Device) SaveState() json.RawMessage {
	b, err := json.Marshal(State{Writeback: d.writeback.Load()})
	if err != nil {
		panic(err) // a struct of one bool
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
	d.writeback.Store(s.Writeback)
	d.setDurable()
	return nil
}
