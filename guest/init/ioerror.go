package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/report"
)

// ioErrors does each operation of op= on each disk, in order, and prints how it went, for the host to judge:
//
//	ebb: ioerror: vda read@4096+512 ok
//	ebb: ioerror: vda write@1048576+4096 EIO
//
// It only fails if the operations can't be understood or a disk can't be opened.
func ioErrors(a args) error {
	disks, err := a.disks(false)
	if err != nil {
		return err
	}
	for _, d := range disks {
		if err := ioErrorsOn(d, a["op"]); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

func ioErrorsOn(rd report.Disk, ops []string) error {
	flags := unix.O_RDWR
	if rd.ReadOnly {
		flags = unix.O_RDONLY
	}
	d, err := openDisk(rd.Name, flags)
	if err != nil {
		return err
	}
	defer d.close()
	for _, op := range ops {
		errno, err := tryOp(d, op)
		if err != nil {
			return err
		}
		say("ioerror: %s %s %s", rd.Name, op, errno)
	}
	return nil
}

// tryOp does one operation, "read@OFFSET+LENGTH", and returns "ok", the errno's name, or "short" for a read or write
// that moved less.
func tryOp(d *disk, op string) (string, error) {
	name, where, _ := strings.Cut(op, "@")
	if name == "flush" {
		return errnoName(d.sync()), nil
	}
	first, second, ok := strings.Cut(where, "+")
	offset, err1 := parseSize(first)
	length, err2 := parseSize(second)
	if !ok || err1 != nil || err2 != nil || length == 0 {
		return "", fmt.Errorf("operation %q is not NAME@OFFSET+LENGTH", op)
	}
	switch name {
	case "discard":
		return errnoName(blkRange(d.fd, blkDiscard, offset, length)), nil
	case "zero":
		return errnoName(blkRange(d.fd, blkZeroOut, offset, length)), nil
	case "read", "write":
	default:
		return "", fmt.Errorf("operation %q: read, write, discard, zero or flush", op)
	}
	buf, err := alignedBuffer(int(length))
	if err != nil {
		return "", err
	}
	defer unix.Munmap(buf)
	n := 0
	if name == "read" {
		n, err = unix.Pread(d.fd, buf, offset)
	} else {
		n, err = unix.Pwrite(d.fd, buf, offset)
	}
	if err == nil && n != len(buf) {
		return fmt.Sprintf("short %d", n), nil
	}
	return errnoName(err), nil
}

func errnoName(err error) string {
	if err == nil {
		return "ok"
	}
	if errno, ok := err.(unix.Errno); ok && unix.ErrnoName(errno) != "" {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}
