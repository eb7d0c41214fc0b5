package cli

import (
	"context"
	"net/http"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/machine"
)

// hotplug changes the disks of a machine that runs.
type hotplug interface {
	AddDisk(machine.Disk) error
	RemoveDisk(ctx context.Context, id string) error
	ResizeDisk(id string, size uint64) error
}

// noHotplug stands for a machine that can't.
type noHotplug struct{}

var errNoHotplug = control.Refuse(http.StatusConflict, "the disks of a running VM can't be changed yet; give them to `ebb run` with --disk")

func (noHotplug) AddDisk(machine.Disk) error               { return errNoHotplug }
func (noHotplug) RemoveDisk(context.Context, string) error { return errNoHotplug }
func (noHotplug) ResizeDisk(string, uint64) error          { return errNoHotplug }
