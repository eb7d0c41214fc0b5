// Package nullblk makes disks that answer any number of requests at once and take a given time
// for each: devices of the kernel's null_blk driver, which as a module the lab has.
package nullblk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	configfs   = "/sys/kernel/config"
	nullBlk    = configfs + "/nullb"
	DeviceMiB  = 64 // size of a device
	irqByTimer = 2  // null_blk's irqmode: a request completes when its timer fires
)

// device is one null_blk device that keeps data.
type device struct{ folder, name string } // below nullBlk; below /dev

// Devices are disks in the order they were made.
type Devices []device

// Make makes a disk for each latency, with room for twice depth requests: the disk is not what
// is short of room. It has a write cache of 1 MiB, so that flushes reach it. It returns those it made with an error as well, for Remove.
func Make(depth int, latencies ...time.Duration) (Devices, error) {
	return makeAll(2*depth, 1, latencies)
}

// MakeShort makes disks that take only as many requests at once: those beyond wait in threads of the kernel. They have no write
// cache: so many threads that make room in it lock each other out, on all processors and for good (null_make_cache_space, Linux 6.1).
func MakeShort(tags int, latencies ...time.Duration) (Devices, error) {
	return makeAll(tags, 0, latencies)
}

func makeAll(tags, cacheMiB int, latencies []time.Duration) (Devices, error) {
	if _, err := os.Stat(nullBlk); errors.Is(err, fs.ErrNotExist) {
		if err := unix.Mount("configfs", configfs, "configfs", 0, ""); err != nil {
			return nil, fmt.Errorf("null_blk: mount configfs: %w", err)
		}
	}
	var all Devices
	for i, latency := range latencies {
		d := device{folder: filepath.Join(nullBlk, fmt.Sprintf("ebbbench%d", i))}
		if err := os.Mkdir(d.folder, 0o755); err != nil {
			return all, fmt.Errorf("null_blk: %w", err)
		}
		all = append(all, d)
		for _, setting := range [][2]string{
			{"size", strconv.Itoa(DeviceMiB)},
			{"memory_backed", "1"},
			{"irqmode", strconv.Itoa(irqByTimer)},
			{"completion_nsec", strconv.FormatInt(latency.Nanoseconds(), 10)},
			{"hw_queue_depth", strconv.Itoa(tags)},
			{"cache_size", strconv.Itoa(cacheMiB)},
			{"power", "1"},
		} {
			if err := os.WriteFile(filepath.Join(d.folder, setting[0]), []byte(setting[1]), 0); err != nil {
				return all, fmt.Errorf("null_blk: %w", err)
			}
		}
		index, err := os.ReadFile(filepath.Join(d.folder, "index"))
		if err != nil {
			return all, fmt.Errorf("null_blk: %w", err)
		}
		// Newer kernels call a device by its folder's name.
		names := []string{filepath.Base(d.folder), "nullb" + strings.TrimSpace(string(index))}
		at := slices.IndexFunc(names, func(name string) bool { _, err := os.Stat("/dev/" + name); return err == nil })
		if at < 0 {
			return all, errors.New("null_blk made no device")
		}
		all[i].name = names[at]
		// Merging and an I/O scheduler would be measured too.
		if err := os.WriteFile("/sys/block/"+names[at]+"/queue/scheduler", []byte("none"), 0); err != nil {
			return all, err
		}
	}
	return all, nil
}

// Remove removes them. What can't be removed goes with the lab.
func (ds Devices) Remove() {
	for _, d := range ds {
		_ = os.WriteFile(filepath.Join(d.folder, "power"), []byte("0"), 0)
		_ = os.Remove(d.folder)
	}
}

// Paths are their device nodes.
func (ds Devices) Paths() (paths []string) {
	for _, d := range ds {
		paths = append(paths, "/dev/"+d.name)
	}
	return paths
}

// Counters are what the kernel counts of a disk's reads, all disks together.
type Counters struct {
	Reads int64
	Took  time.Duration // sum over all reads
}

// Counters returns what there was since the disks were made.
func (ds Devices) Counters() (c Counters, err error) {
	for _, d := range ds {
		data, err := os.ReadFile("/sys/block/" + d.name + "/stat")
		if err != nil {
			return c, err
		}
		// Documentation/block/stat.rst: reads, merged, sectors, milliseconds
		var reads, merged, sectors, ms int64
		if _, err := fmt.Sscan(string(data), &reads, &merged, &sectors, &ms); err != nil {
			return c, fmt.Errorf("/sys/block/%s/stat: %w", d.name, err)
		}
		c.Reads += reads
		c.Took += time.Duration(ms) * time.Millisecond
	}
	return c, nil
}

// MeanSince is how long a read took in the disks since an earlier count.
func (c Counters) MeanSince(before Counters) time.Duration {
	return (c.Took - before.Took) / time.Duration(max(c.Reads-before.Reads, 1))
}
