package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// disk is an open block device, without the page cache between it and us.
type disk struct {
	fd   int
	size int64 // bytes
}

// openDisk opens /dev/<name> with O_DIRECT and flags (O_RDONLY or O_RDWR).
func openDisk(name string, flags int) (*disk, error) {
	path := "/dev/" + name
	fd, err := unix.Open(path, flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	size, err := unix.Seek(fd, 0, io.SeekEnd)
	if err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "seek", Path: path, Err: err}
	}
	return &disk{fd, size}, nil
}

func (d *disk) close() { unix.Close(d.fd) }

func (d *disk) sync() error { return unix.Fdatasync(d.fd) }

// read fills p, an aligned buffer, from offset at.
func (d *disk) read(p []byte, at int64) error {
	n, err := unix.Pread(d.fd, p, at)
	return whole("read", n, len(p), at, err)
}

// write writes all of p, an aligned buffer, at offset at.
func (d *disk) write(p []byte, at int64) error {
	n, err := unix.Pwrite(d.fd, p, at)
	return whole("write", n, len(p), at, err)
}

func whole(op string, n, want int, at int64, err error) error {
	if err == nil && n != want {
		err = fmt.Errorf("only %d bytes", n)
	}
	if err != nil {
		return fmt.Errorf("%s of %d bytes at %d: %w", op, want, at, err)
	}
	return nil
}

// alignedBuffer returns n bytes that start at a page, as O_DIRECT wants; unix.Munmap gives them back.
func alignedBuffer(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}
