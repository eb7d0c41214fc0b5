package blk

import (
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// place is which file or device an image is, on this host until it reboots.
type place struct {
	dev uint64 // of the file system; of a device its own number
	ino uint64 // 0 for a device: whichever node it was opened by
}

func placeOf(st *unix.Stat_t) place {
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return place{dev: st.Rdev}
	}
	return place{dev: st.Dev, ino: st.Ino}
}

// Kinds of images.
const (
	KindFile   = "file"
	KindDevice = "device"
)

// Identity is what two hosts compare of an image before a migration: what the guest knows
// of it, and which file it is.
type Identity struct {
	Size         int64  `json:"size"`         // bytes
	BlockSize    int    `json:"blockSize"`    // bytes: the guest's logical block size
	PhysicalSize int    `json:"physicalSize"` // bytes
	MemoryAlign  int    `json:"memoryAlign"`  // bytes; the guest doesn't see it, and it may differ
	Kind         string `json:"kind"`         // KindFile or KindDevice; may differ
	ReadOnly     bool   `json:"readOnly"`
	Direct       bool   `json:"direct"`  // past the host's page cache
	Discard      bool   `json:"discard"` // offered to the guest
	Zeroes       bool   `json:"zeroes"`  // WRITE_ZEROES is offered to the guest

	Boot string `json:"boot"` // the host and its boot (/proc/sys/kernel/random/boot_id); empty: unknown
	Dev  uint64 `json:"dev"`  // on that host
	Ino  uint64 `json:"ino"`  // on that host; 0 for a device
}

// Identity returns the facts about an open image. Any goroutine.
func (i *Image) Identity() Identity {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it no host is known to be the same
	kind := KindFile
	if i.device {
		kind = KindDevice
	}
	return Identity{
		Size: i.Size(), BlockSize: i.blockSize, PhysicalSize: i.physicalSize, MemoryAlign: i.memAlign,
		Kind: kind, ReadOnly: i.readOnly, Direct: i.direct, Discard: i.discard, Zeroes: i.zeroes,
		Boot: strings.TrimSpace(string(boot)), Dev: i.place.dev, Ino: i.place.ino,
	}
}

// sameHost reports whether both are known to be of one running kernel.
func sameHost(a, b Identity) bool { return a.Boot != "" && a.Boot == b.Boot }

// Shared reports whether two images are known to be one file or device on one host, so that
// they share the host's page cache and its locks.
func Shared(source, dest Identity) bool {
	return sameHost(source, dest) && source.Dev == dest.Dev && source.Ino == dest.Ino
}

// CachesSafely reports whether no stale page of a host's cache can come between source and
// destination: both go past it, it is one and the same, or nobody writes. Elsewhere TakeOver
// drops what the destination has cached, which is all it can do: what a network file system
// keeps in other places is up to that.
func CachesSafely(source, dest Identity) bool {
	return source.Direct && dest.Direct || source.ReadOnly && dest.ReadOnly || Shared(source, dest)
}

// CheckIncoming reports why a guest can't go on with this image instead of the source's, in
// one sentence. If it can, it sees what it saw of the source's: block sizes and what is
// offered are taken over from there. Before a Device is made of the image; any goroutine.
func (i *Image) CheckIncoming(source Identity) error {
	i.changing.Lock()
	defer i.changing.Unlock()
	own := i.Identity()
	no := func(format string, args ...any) error {
		return refuse(fs.ErrInvalid, "disk image %s "+format, append([]any{i.path}, args...)...)
	}
	switch {
	case !source.possible():
		return no("can't be compared with the source's, whose description makes no sense: %+v", source)
	case source.ReadOnly && !own.ReadOnly:
		return no("is open for writing, but the guest has it read-only; add readonly")
	case own.ReadOnly && !source.ReadOnly:
		return no("is open for reading only, but the guest writes to it; leave out readonly")
	case sameHost(source, own) && source.Kind == own.Kind && !Shared(source, own):
		return no("is not the image the source has, and migration copies none; give the same one")
	case own.Size < source.Size:
		return no("has %d bytes, fewer than the %d the guest knows of; is it the same image?", own.Size, source.Size)
	case own.Size > source.Size:
		return no("has %d bytes, more than the %d the guest knows of; is it the same image? If it has grown, resize the disk at the source first", own.Size, source.Size)
	case own.BlockSize > source.BlockSize:
		return no("needs blocks of %d bytes here, but the guest may use %d; leave out direct", own.BlockSize, source.BlockSize)
	case source.Discard && !own.Discard:
		return no("is on storage that can't discard, which the guest was offered; use storage like the source's")
	case source.Zeroes && !own.Zeroes:
		return no("is on storage that can't write zeroes to any block, which the guest was offered; use storage like the source's")
	}
	i.blockSize, i.physicalSize = source.BlockSize, source.PhysicalSize
	i.discard, i.zeroes = source.Discard, source.Zeroes
	i.coherent = Shared(source, own)
	return nil
}

// possible reports whether an Image could have said so of itself: it came over the network.
func (d *Identity) possible() bool {
	return powerOfTwo(d.BlockSize) && d.BlockSize >= sectorSize && d.BlockSize <= maxBlockSize &&
		powerOfTwo(d.PhysicalSize) && d.PhysicalSize >= d.BlockSize && d.PhysicalSize <= maxPhysicalSize &&
		d.Size > 0 && d.Size%int64(d.BlockSize) == 0 && (d.Kind == KindFile || d.Kind == KindDevice)
}
