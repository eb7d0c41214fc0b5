package main

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/pattern"
	"github.com/ebb-vmm/ebb/guest/report"
)

// discard writes the pattern to an area of every disk, discards its second quarter and zeroes its fourth, and checks
// that these read as zeroes (which ebb promises for both) and that the rest is untouched.
func discard(a args) error {
	disks, err := a.disks(true)
	if err != nil {
		return err
	}
	n, err := a.numbers("offset", "size")
	if err != nil {
		return err
	}
	offset, size := n[0], n[1]
	if offset%4096 != 0 || size == 0 || size%(4*4096) != 0 {
		return fmt.Errorf("offset must be a multiple of 4096, size of 16384")
	}
	return onAll(disks, func(d report.Disk) error { return discardOn(d, offset, size/4) })
}

func discardOn(rd report.Disk, offset, quarter int64) error {
	if err := patternOnto(rd, area{offset, 4 * quarter, min(quarter, 1<<20)}); err != nil {
		return err
	}
	d, err := openDisk(rd.Name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer d.close()
	if err := blkRange(d.fd, blkDiscard, offset+quarter, quarter); err != nil {
		return fmt.Errorf("BLKDISCARD: %w", err)
	}
	if err := blkRange(d.fd, blkZeroOut, offset+3*quarter, quarter); err != nil {
		return fmt.Errorf("BLKZEROOUT: %w", err)
	}
	if err := d.sync(); err != nil {
		return err
	}
	buf, err := alignedBuffer(int(quarter))
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	for i, name := range []string{"", "discarded", "", "zeroed"} {
		at := offset + int64(i)*quarter
		if err := d.read(buf, at); err != nil {
			return err
		}
		if name == "" {
			if err := pattern.Check(buf, rd.Serial, uint64(at/pattern.SectorSize)); err != nil {
				return fmt.Errorf("beside the discarded part: %w", err)
			}
		} else if n := len(bytes.TrimLeft(buf, "\x00")); n != 0 {
			return fmt.Errorf("%s part: byte %d is not zero", name, at+quarter-int64(n))
		}
	}
	return nil
}
