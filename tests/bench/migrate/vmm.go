package main

import (
	"context"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// vmm is ebb or QEMU.
type vmm interface {
	// start runs the guest; receive waits for it.
	start(ctx context.Context, at moving.Place) (*moving.VM, error)
	receive(ctx context.Context, at moving.Place) (*moving.VM, error)
	// migrate returns when the guest runs at the destination.
	migrate(ctx context.Context, from, to *moving.VM) (own, error)
	// close is for when all VMs have ended.
	close()
}

// bench is what all VMs have in common.
type bench struct {
	moving.Host
	o         options
	diskbench string      // kernel of ring3
	linux     guest.Image // of linux
	memoryMiB int         // of a guest whose memory matters
	cell      cell
	disk      disk
	copier    moving.Copier
}

const (
	period    = 200 * time.Millisecond // between the guest's lines
	queueSize = 512                    // 3 descriptors a request
	copySize  = 256 << 20              // bytes of a plain copy
)

// throttled is a place where the disk's throttle is in force.
func (b *bench) throttled(at moving.Place) moving.Place {
	at.Command = append(at.Command[:len(at.Command):len(at.Command)], b.disk.cgroup.Command()...)
	return at
}
