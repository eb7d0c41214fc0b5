package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ebb-vmm/ebb/machine"
)

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
			d.ID = diskName(i)
		}
		for _, e := range disks {
			if e.ID == d.ID {
				return nil, usagef("--disk %s: the id %q is another disk's already; give one of them id=", spec, d.ID)
			}
		}
		disks = append(disks, d)
	}
	if len(disks) > machine.MaxDisks {
		return nil, usagef("--disk: %d disks are too many; %d fit", len(disks), machine.MaxDisks)
	}
	return disks, nil
}

func parseDisk(spec string) (d machine.Disk, err error) {
	seen := map[string]bool{}
	for _, item := range splitCommas(spec) {
		key, value, hasValue := strings.Cut(item, "=")
		if seen[key] {
			return d, usagef("--disk %s: %s is given twice", spec, key)
		}
		seen[key] = true
		switch key {
		case "readonly", "direct":
			on, err := parseSwitch(value, hasValue)
			if err != nil {
				return d, usagef("--disk %s: %s=%s: write %s alone, or =on or =off", spec, key, value, key)
			}
			if key == "readonly" {
				d.ReadOnly = on
			} else {
				d.Direct = on
			}
			continue
		}
		if value == "" {
			return d, usagef("--disk %s: %s needs a value, %s=...", spec, item, key)
		}
		switch key {
		case "path":
			d.Path = value
		case "id":
			d.ID = value
		case "serial":
			if len(value) > 20 {
				return d, usagef("--disk %s: serial=%s has %d bytes; virtio-blk has room for 20", spec, value, len(value))
			}
			d.Serial = value
		case "queues":
			// As many vectors as queues must fit into one page of the MSI-X table.
			d.Queues, err = parseNumber(value, 1, 64)
		case "queue-size":
			d.QueueSize, err = parseNumber(value, 4, 1024)
			if err == nil && d.QueueSize&(d.QueueSize-1) != 0 {
				err = fmt.Errorf("not a power of two")
			}
		default:
			return d, usagef("--disk %s: there is no key %q; path, id, serial, readonly, direct, queues and queue-size exist", spec, key)
		}
		if err != nil {
			return d, usagef("--disk %s: %s: %w", spec, item, err)
		}
	}
	if d.Path == "" {
		return d, usagef("--disk %s: path=FILE is missing", spec)
	}
	return d, nil
}

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
		return 0, fmt.Errorf("not a number from %d to %d", low, high)
	}
	return n, nil
}

// diskName is what Linux calls disk i: vda to vdz, then vdaa.
func diskName(i int) string {
	letters := ""
	for i++; i > 0; i = (i - 1) / 26 {
		letters = string(rune('a'+(i-1)%26)) + letters
	}
	return "vd" + letters
}
