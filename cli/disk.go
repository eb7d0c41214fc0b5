package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/machine"
)

var diskKeys = []string{"path", "id", "serial", "readonly", "direct", "queues", "queue-size", "iops", "bps", "group", "weight", "error", "format"}

// diskKeysHelp is a line for each.
const diskKeysHelp = `  path=FILE             a raw image file or a block device
  id=NAME               its name in messages (default: vda, vdb, ... by its place)
  serial=TEXT           what the guest reads as serial number (default: the id)
  readonly              the guest can't write
  direct                past the host's page cache
  queues=N              virtqueues (default: one per vCPU)
  queue-size=N          entries of each, a power of two from 4 to 1024 (default: 256)
  iops=RATE[:BURST]     requests a second (default: no limit)
  bps=SIZE[:BURST]      bytes a second, such as 20M (default: no limit)
  group=NAME            shares its limits with the other disks of the group
  weight=N              its part of the engine, 1 to 1000 (default: 100)
  error=report|stop     what a failed request does to the guest (default: stop when storage is full)
  format=raw            it is raw, though it begins as another format's images do`

// parseDisks reads the values of --disk: comma-separated keys, of which path is
// needed. A comma in a value is written twice, as for QEMU. Disks without an id
// are called vda, vdb, ... by their place.
func parseDisks(specs []string) ([]machine.Disk, error) {
	var disks []machine.Disk
	for i, spec := range specs {
		d, err := parseDisk(spec)
		if err != nil {
			return nil, err
		}
		if d.ID == "" {
			d.ID = machine.DiskName(i)
		}
		for _, e := range disks {
			if e.ID == d.ID {
				return nil, usagef("--disk %s: the id %s is another disk's already; give one of them another with id=NAME", spec, d.ID)
			}
		}
		disks = append(disks, d)
	}
	if len(disks) > machine.MaxDisks {
		return nil, usagef("--disk is given %d times; give at most %d", len(disks), machine.MaxDisks)
	}
	return disks, nil
}

func parseDisk(spec string) (machine.Disk, error) {
	d, err := parseKeys(spec)
	if err != nil {
		return d, usagef("--disk %s: %w", spec, err)
	}
	return d, nil
}

// parseKeys reads one disk's keys.
func parseKeys(spec string) (d machine.Disk, err error) {
	seen := map[string]bool{}
	for _, item := range splitCommas(spec) {
		key, value, hasValue := strings.Cut(item, "=")
		if !slices.Contains(diskKeys, key) {
			return d, fmt.Errorf("there is no key %q; write path=FILE, and if needed %s", key, strings.Join(diskKeys[1:], ", "))
		}
		if seen[key] {
			return d, fmt.Errorf("%s is given twice; leave one", key)
		}
		seen[key] = true
		switch key {
		case "readonly", "direct":
			on, err := parseSwitch(value, hasValue)
			if err != nil {
				return d, fmt.Errorf("%s: write %s alone, or %s=on or %s=off", item, key, key, key)
			}
			if key == "readonly" {
				d.ReadOnly = on
			} else {
				d.Direct = on
			}
			continue
		}
		if value == "" {
			return d, fmt.Errorf("%s needs a value; write %s=VALUE", key, key)
		}
		switch key {
		case "path":
			d.Path = value
		case "id":
			if !control.ValidName(value) {
				return d, fmt.Errorf("id=%s is no id; use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit", value)
			}
			d.ID = value
		case "serial":
			if len(value) > 20 {
				return d, fmt.Errorf("serial=%s has %d bytes; use at most 20", value, len(value))
			}
			d.Serial = value
		case "queues":
			d.Queues, err = parseNumber(value, 1, machine.MaxCPUs) // no guest uses more than one a vCPU
		case "queue-size":
			d.QueueSize, err = parseNumber(value, 4, 1024)
			if err == nil && d.QueueSize&(d.QueueSize-1) != 0 {
				err = errors.New("give a power of two")
			}
		case "iops":
			d.Limits.IOPS, err = parseRate(value, plainNumber, "1000, or 1000:5000 with a burst")
		case "bps":
			d.Limits.BPS, err = parseRate(value, units.RAMInBytes, "20M, or 20M:100M with a burst")
		case "group":
			if !control.ValidName(value) {
				return d, fmt.Errorf("group=%s is no name; use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit", value)
			}
			d.Group = value
		case "weight":
			d.Weight, err = parseNumber(value, 1, aio.MaxWeight)
		case "error":
			d.Errors, err = blk.ParseErrorPolicy(value)
		case "format":
			if d.Raw = value == "raw"; !d.Raw {
				err = errors.New("only raw images can be used; give one made with: qemu-img convert -O raw OLD NEW")
			}
		}
		if err != nil {
			return d, fmt.Errorf("%s: %w", item, err)
		}
	}
	if err := d.Limits.Validate(); err != nil {
		return d, err
	}
	if d.Path == "" {
		return d, errors.New("the image is missing; write path=FILE")
	}
	return d, nil
}

// parseRate reads a limit per second, and behind a colon the burst.
func parseRate(s string, number func(string) (int64, error), example string) (r aio.Rate, err error) {
	rate, burst, hasBurst := strings.Cut(s, ":")
	if r.PerSecond, err = number(rate); err == nil && hasBurst {
		r.Burst, err = number(burst)
	}
	if err != nil || r.PerSecond <= 0 || hasBurst && r.Burst <= 0 {
		return r, fmt.Errorf("write a number above 0, as in %s", example)
	}
	return r, nil
}

func plainNumber(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

// splitCommas splits at single commas; a doubled one is a comma.
func splitCommas(s string) []string {
	const hidden = "\x00"
	parts := strings.Split(strings.ReplaceAll(s, ",,", hidden), ",")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], hidden, ",")
	}
	return parts
}

func parseSwitch(value string, given bool) (bool, error) {
	switch {
	case !given, value == "on":
		return true, nil
	case value == "off":
		return false, nil
	default:
		return false, strconv.ErrSyntax
	}
}

func parseNumber(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("give a number from %d to %d", low, high)
	}
	return n, nil
}
