package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/pattern"
	"github.com/ebb-vmm/ebb/guest/report"
)

// area is a part of every disk, worked through block by block.
type area struct{ offset, size, block int64 } // bytes; size 0: up to the end of the disk

func (a args) area() (area, error) {
	n, err := a.numbers("offset", "size", "block")
	if err != nil {
		return area{}, err
	}
	r := area{offset: n[0], size: n[1], block: n[2]}
	if r.block < 512 || r.block%512 != 0 || r.offset%512 != 0 || r.size%512 != 0 {
		return r, fmt.Errorf("offset, size and block must be multiples of 512, block not 0")
	}
	return r, nil
}

// each calls f for the area's blocks on a disk of the given size.
func (r area) each(diskSize int64, f func(at, n int64) error) error {
	end := diskSize
	if r.size != 0 {
		end = r.offset + r.size
	}
	if end > diskSize {
		return fmt.Errorf("the disk has %d bytes, the workload wants %d", diskSize, end)
	}
	for at := r.offset; at < end; at += r.block {
		if err := f(at, min(r.block, end-at)); err != nil {
			return err
		}
	}
	return nil
}

// writePattern writes package pattern's sectors to all disks at once, flushes, and, with check=1, reads them back.
func writePattern(a args) error {
	disks, err := a.disks(true)
	if err != nil {
		return err
	}
	r, err := a.area()
	if err != nil {
		return err
	}
	check := a.text("check") == "1"
	return onAll(disks, func(d report.Disk) error {
		if err := patternOnto(d, r); err != nil || !check {
			return err
		}
		return patternFrom(d, r)
	})
}

// verifyPattern checks what writePattern wrote, in this boot or an earlier one.
func verifyPattern(a args) error {
	disks, err := a.disks(false)
	if err != nil {
		return err
	}
	r, err := a.area()
	if err != nil {
		return err
	}
	return onAll(disks, func(d report.Disk) error { return patternFrom(d, r) })
}

func patternOnto(rd report.Disk, r area) error {
	d, err := openDisk(rd.Name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer d.close()
	buf, err := alignedBuffer(int(r.block))
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	err = r.each(d.size, func(at, n int64) error {
		pattern.Fill(buf[:n], rd.Serial, uint64(at/pattern.SectorSize))
		return d.write(buf[:n], at)
	})
	if err != nil {
		return err
	}
	return d.sync()
}

func patternFrom(rd report.Disk, r area) error {
	d, err := openDisk(rd.Name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer d.close()
	buf, err := alignedBuffer(int(r.block))
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	return r.each(d.size, func(at, n int64) error {
		if err := d.read(buf[:n], at); err != nil {
			return err
		}
		return pattern.Check(buf[:n], rd.Serial, uint64(at/pattern.SectorSize))
	})
}
