package machine

import (
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/machine/memory"
)

// Limits of a machine.
const (
	MaxCPUs   = 254 // 8-bit local APIC ids, without the broadcast and the I/O APIC's
	MaxDisks  = 64
	MinMemory = 16 << 20 // bytes
	MaxMemory = 1 << 40  // bytes; guest-physical addresses stay below 2^40

	// MaxHotplugSlots is how many disks can at most be added to a running guest: their
	// root ports are the functions of one device.
	MaxHotplugSlots = 8

	// DefaultHotplugSlots is what ebb run gives, which is few: each slot is a root port,
	// and costs a Linux guest 1 to 2 % of its boot (docs/bench/boot.md).
	DefaultHotplugSlots = 2
)

// Config describes a machine. What is zero has no default: New checks it.
type Config struct {
	Kernel  string // bzImage or ELF file
	Initrd  string // empty: none
	Cmdline string

	Memory uint64 // bytes, a multiple of 2 MiB
	CPUs   int

	Disks []Disk

	HotplugSlots int // how many disks can be added while the guest runs, up to MaxHotplugSlots

	// Console takes what the guest writes to its serial port, from one goroutine.
	// nil drops it.
	Console io.Writer

	NoReboot bool           // a guest's reset ends Run
	AIO      aio.EngineKind // what does the disks' I/O
	AIOMax   int            // most disk requests in flight, all disks together; 0: aio's own bound

	Log *slog.Logger
}

// Disk describes one virtio-blk disk.
type Disk struct {
	ID        string // unique; names the disk in messages
	Path      string // image: raw regular file or block device
	Serial    string // up to 20 bytes
	ReadOnly  bool
	Direct    bool // O_DIRECT
	Raw       bool // the image is raw whatever it begins with (blk.ImageOptions)
	Queues    int  // 0: one per vCPU
	QueueSize int  // 0: 256

	Weight int             // of its share of the engine, 1 to aio.MaxWeight; 0: aio.DefaultWeight
	Limits aio.Limits      // of this disk, or of its group
	Group  string          // disks of the same group share its limits, which at least one of them gives; empty: none
	Errors blk.ErrorPolicy // what becomes of a request that the host fails
}

func (c *Config) check() error {
	switch {
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("%d vCPUs are not possible: give 1 to %d with --cpus", c.CPUs, MaxCPUs)
	case c.Memory < MinMemory || c.Memory > MaxMemory:
		return fmt.Errorf("%s of memory is not possible: give %d MiB to %d GiB with --memory", mebibytes(c.Memory), MinMemory>>20, MaxMemory>>30)
	case c.Memory%memory.Alignment != 0:
		return fmt.Errorf("%s of memory is not possible: give a multiple of 2 MiB with --memory", mebibytes(c.Memory))
	case c.HotplugSlots < 0 || c.HotplugSlots > MaxHotplugSlots:
		return fmt.Errorf("%d hotplug slots are not possible: give 0 to %d with --hotplug-slots", c.HotplugSlots, MaxHotplugSlots)
	case len(c.Disks) > MaxDisks:
		return fmt.Errorf("%d disks are not possible: at most %d fit on the bus", len(c.Disks), MaxDisks)
	}
	for i, d := range c.Disks {
		if slices.ContainsFunc(c.Disks[:i], func(e Disk) bool { return e.ID == d.ID }) {
			return fmt.Errorf("two disks have the id %q: give each --disk its own id=", d.ID)
		}
	}
	return nil
}

func mebibytes(n uint64) string {
	if n%(1<<20) != 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// DiskName is what Linux calls disk i: vda to vdz, then vdaa.
func DiskName(i int) string {
	letters := ""
	for i++; i > 0; i = (i - 1) / 26 {
		letters = string(rune('a'+(i-1)%26)) + letters
	}
	return "vd" + letters
}
