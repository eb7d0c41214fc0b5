package blk

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxBlockSize is the largest logical block size in bytes a Linux guest takes
// (its page size; newer kernels take more).
const maxBlockSize = 4096

// maxPhysicalSize in bytes: what is larger is a stripe or a cluster, no block.
const maxPhysicalSize = 64 << 10

// findAlignment finds what direct I/O asks of offsets, lengths and buffers. It
// asks the kernel; where that doesn't know, it tries.
func (i *Image) findAlignment(direct bool) error {
	i.blockSize, i.memAlign = sectorSize, 1
	if !direct {
		return nil
	}
	mem, off, err := i.directAlign()
	switch {
	case err != nil:
		return refuse(err, "disk image %s can't be used with direct I/O (%v); leave out direct", i.path, err)
	case off > maxBlockSize:
		return refuse(unix.EINVAL, "disk image %s needs blocks of %d bytes for direct I/O, more than a guest can use; leave out direct", i.path, off)
	}
	i.memAlign = max(mem, off) // the length of each buffer has to be whole blocks as well (statx(2), stx_dio_offset_align)
	i.blockSize = max(off, sectorSize)
	return nil
}

// directAlign returns the alignment of buffers and of offsets in bytes.
func (i *Image) directAlign() (mem, off int, err error) {
	var sx unix.Statx_t
	err = unix.Statx(i.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &sx)
	if err == nil && sx.Mask&unix.STATX_DIOALIGN != 0 { // since Linux 6.1, per file system
		mem, off = int(sx.Dio_mem_align), int(sx.Dio_offset_align)
		if off == 0 {
			return 0, 0, unix.EOPNOTSUPP
		}
		if powerOfTwo(mem) && powerOfTwo(off) {
			return mem, off, nil
		}
	}
	if i.device {
		n, err := unix.IoctlGetInt(i.fd, unix.BLKSSZGET)
		if err == nil && powerOfTwo(n) {
			return n, n, nil
		}
	}
	return i.probeAlign()
}

// probeAlign reads from the start of the image with ever larger blocks until the
// kernel takes one. Buffers are given the same alignment; that is more than most
// storage needs, and never too little.
func (i *Image) probeAlign() (mem, off int, err error) {
	// Mapped, because memory of the Go heap has no alignment to rely on.
	buf, err := unix.Mmap(-1, 0, 2*maxBlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Munmap(buf) //nolint:errcheck // our own mapping
	for n := sectorSize; n <= maxBlockSize; n *= 2 {
		// Both the buffer's and the file's offset are aligned to n and no better.
		_, err = unix.Pread(i.fd, buf[n:2*n], int64(n))
		if err == nil {
			return n, n, nil
		}
		if err != unix.EINVAL {
			return 0, 0, err
		}
	}
	return 0, 0, err
}

// findTopology finds what the storage handles best: a power of two of blocks.
func (i *Image) findTopology(st *unix.Stat_t) {
	n := int(st.Blksize)
	if i.device {
		n, _ = unix.IoctlGetInt(i.fd, unix.BLKPBSZGET)
	}
	if !powerOfTwo(n) || n < i.blockSize || n > maxPhysicalSize {
		n = i.blockSize
	}
	i.physicalSize = n
}

// findSupport finds what can be offered beside reading and writing. Only block
// devices are asked; a file system is tried at the first request (UNSUPP if it can't).
func (i *Image) findSupport(st *unix.Stat_t) {
	i.discard, i.zeroes = !i.readOnly, !i.readOnly
	if !i.device {
		return
	}
	// A device takes only extents of whole blocks of its own; the page cache lets
	// the guest have smaller ones, but only for data.
	n, err := unix.IoctlGetInt(i.fd, unix.BLKSSZGET)
	whole := err == nil && n <= i.blockSize
	i.zeroes = i.zeroes && whole
	// Without write-zeroes it would come to nothing: fallocate(2) makes these, which free what they can, of a discard.
	i.discard = i.discard && whole && queueLimit(st.Rdev, "discard_max_bytes") > 0 && queueLimit(st.Rdev, "write_zeroes_max_bytes") > 0
}

// queueLimit returns a limit of a block device's queue (Documentation/ABI/stable/sysfs-block), 0 if it has none.
func queueLimit(dev uint64, name string) int64 {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
	for _, p := range []string{dir + "/queue/" + name, dir + "/../queue/" + name} { // the second: a partition
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil {
			return n
		}
	}
	return 0
}
