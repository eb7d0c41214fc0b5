package main

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
	deviceMiB  = 64
	irqByTimer = 2 // null_blk's irqmode: a request completes when its timer fires
)

// device is one null_blk device that keeps data.
type device struct{ folder, name string } // below nullBlk; below /dev

type devices []device

// makeDevices returns those it made with an error as well, for remove.
func makeDevices(n, depth int, latency time.Duration) (devices, error) {
	if _, err := os.Stat(nullBlk); errors.Is(err, fs.ErrNotExist) {
		if err := unix.Mount("configfs", configfs, "configfs", 0, ""); err != nil {
			return nil, fmt.Errorf("null_blk: mount configfs: %w", err)
		}
	}
	var all devices
	for i := range n {
		d := device{folder: filepath.Join(nullBlk, fmt.Sprintf("congestion%d", i))}
		if err := os.Mkdir(d.folder, 0o755); err != nil {
			return all, fmt.Errorf("null_blk: %w", err)
		}
		all = append(all, d)
		for _, setting := range [][2]string{
			{"size", strconv.Itoa(deviceMiB)},
			{"memory_backed", "1"},
			{"irqmode", strconv.Itoa(irqByTimer)},
			{"completion_nsec", strconv.FormatInt(latency.Nanoseconds(), 10)},
			{"hw_queue_depth", strconv.Itoa(2 * depth)}, // the disk is not what is short of room
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

func (ds devices) remove() {
	for _, d := range ds {
		_ = os.WriteFile(filepath.Join(d.folder, "power"), []byte("0"), 0) // what can't be removed goes with the lab
		_ = os.Remove(d.folder)
	}
}

func (ds devices) paths() (paths []string) {
	for _, d := range ds {
		paths = append(paths, "/dev/"+d.name)
	}
	return paths
}

// counters are what the kernel counts of a disk's reads, all disks together.
type counters struct {
	reads int64
	took  time.Duration // sum over all reads
}

// counters returns what there was since the disks were made.
func (ds devices) counters() (c counters, err error) {
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
		c.reads += reads
		c.took += time.Duration(ms) * time.Millisecond
	}
	return c, nil
}

// meanSince is how long a read took in the disks since an earlier count.
func (c counters) meanSince(before counters) time.Duration {
	return (c.took - before.took) / time.Duration(max(c.reads-before.reads, 1))
}
