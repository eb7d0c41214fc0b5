package machine

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
)

// description is what a guest has seen of its machine and so must find at the destination,
// and the user's options that go with it.
type description struct {
	Memory       uint64            `json:"memory"` // bytes
	CPUs         int               `json:"cpus"`
	HotplugSlots int               `json:"hotplug_slots"`
	AIO          aio.EngineKind    `json:"aio"`
	AIOMax       int               `json:"aio_max"`
	Linux        bool              `json:"linux"`     // the kernel certainly is
	Cmdline      string            `json:"cmdline"`   // for when it boots again
	NoReboot     bool              `json:"no_reboot"` // it doesn't
	Disks        []diskDescription `json:"disks"`     // those given at start first
	Traits       cpuTraits         `json:"traits"`
}

// diskDescription is one disk's.
type diskDescription struct {
	ID        string          `json:"id"`
	File      string          `json:"file"` // name of the image, without its directory
	Slot      int             `json:"slot"` // hotplug slot; -1: given at start
	Serial    string          `json:"serial"`
	ReadOnly  bool            `json:"readonly"`
	Direct    bool            `json:"direct"`
	Queues    int             `json:"queues"`
	QueueSize int             `json:"queue_size"`
	Weight    int             `json:"weight"`
	Limits    aio.Limits      `json:"limits"`
	Group     string          `json:"group"`
	Errors    blk.ErrorPolicy `json:"errors"`
	Image     blk.Identity    `json:"image"`
}

// arrivalDescription is what a destination says of itself.
type arrivalDescription struct {
	Disks map[string]blk.Identity `json:"disks"` // by id
}

func (m *Machine) describe(traits cpuTraits) description {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := description{
		Memory: m.cfg.Memory, CPUs: m.cfg.CPUs, HotplugSlots: m.cfg.HotplugSlots, AIO: m.cfg.AIO, AIOMax: m.cfg.AIOMax,
		Linux: m.linux, Cmdline: m.cfg.Cmdline, NoReboot: m.cfg.NoReboot, Traits: traits,
	}
	for _, k := range m.disks {
		c := k.cfg
		d.Disks = append(d.Disks, diskDescription{
			ID: c.ID, File: filepath.Base(c.Path), Slot: k.slot, Serial: c.Serial, ReadOnly: c.ReadOnly, Direct: c.Direct,
			Queues: c.Queues, QueueSize: c.QueueSize, Weight: c.Weight, Limits: k.limits(), Group: c.Group, Errors: c.Errors,
			Image: k.image.Identity(),
		})
	}
	return d
}

// check looks whether a description, which came from anywhere, can be of a machine. Config.check has looked
// at most of it.
func (d *description) check() error {
	slots := map[int]bool{}
	for i, k := range d.Disks {
		switch {
		case k.Slot == onBus0 && i > 0 && d.Disks[i-1].Slot != onBus0:
			return fmt.Errorf("disk %s is not in its place", k.ID)
		case k.Slot != onBus0 && (k.Slot < 0 || k.Slot >= d.HotplugSlots || slots[k.Slot]):
			return fmt.Errorf("disk %s is in hotplug slot %d, which can't be", k.ID, k.Slot+1)
		case !slices.Contains([]blk.ErrorPolicy{blk.ErrorsDefault, blk.ErrorsReport, blk.ErrorsStop}, k.Errors):
			return fmt.Errorf("disk %s has an error policy of %d", k.ID, k.Errors)
		}
		slots[k.Slot] = true
	}
	return nil
}
