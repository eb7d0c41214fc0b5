// Package pattern makes disk contents that depend on nothing but a disk's serial and a sector's number, so that a guest
// can write them and the host, or the guest after a migration, can tell whether every sector is the right one. Lost,
// torn, misplaced and swapped sectors are all found, and told apart in the error.
package pattern

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// SectorSize is the unit of the pattern in bytes, that of virtio-blk.
const SectorSize = 512

// A sector starts with magic, the hash of the serial and its number; a pseudo-random stream of the two follows.
const (
	magic      = "ebb!disk"
	headerSize = 24
)

// Fill writes the pattern for consecutive sectors, from number sector on, into p. len(p) must be a multiple of
// SectorSize, or Fill panics.
func Fill(p []byte, serial string, sector uint64) {
	if len(p)%SectorSize != 0 {
		panic(fmt.Sprintf("pattern: %d bytes are not whole sectors", len(p)))
	}
	id := diskID(serial)
	for ; len(p) > 0; p = p[SectorSize:] {
		fillSector(p[:SectorSize], id, sector)
		sector++
	}
}

// Check compares p with what Fill would have written. The error names the first wrong sector and what is there instead.
func Check(p []byte, serial string, sector uint64) error {
	if len(p)%SectorSize != 0 {
		return fmt.Errorf("%d bytes are not whole sectors", len(p))
	}
	id := diskID(serial)
	var want [SectorSize]byte
	for ; len(p) > 0; p = p[SectorSize:] {
		fillSector(want[:], id, sector)
		if got := p[:SectorSize]; string(got) != string(want[:]) {
			return fmt.Errorf("disk %q sector %d: %s", serial, sector, describe(got, want[:], id, sector))
		}
		sector++
	}
	return nil
}

// CheckReader checks size bytes of r, which are the disk's from byte offset on; both are whole sectors.
func CheckReader(r io.ReaderAt, serial string, offset, size int64) error {
	buf := make([]byte, 1<<20)
	for size > 0 {
		n := min(size, int64(len(buf)))
		if _, err := r.ReadAt(buf[:n], offset); err != nil {
			return fmt.Errorf("disk %q at byte %d: %w", serial, offset, err)
		}
		if err := Check(buf[:n], serial, uint64(offset/SectorSize)); err != nil {
			return err
		}
		offset, size = offset+n, size-n
	}
	return nil
}

func diskID(serial string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(serial))
	return h.Sum64()
}

func fillSector(p []byte, id, sector uint64) {
	le := binary.LittleEndian
	copy(p, magic)
	le.PutUint64(p[8:], id)
	le.PutUint64(p[16:], sector)
	fillStream(p[headerSize:], id^(sector+1)*golden)
}

const golden = 0x9e3779b97f4a7c15

// fillStream fills p with splitmix64: every word differs between seeds that differ in one bit.
func fillStream(p []byte, x uint64) {
	for i := 0; i < len(p); i += 8 {
		x += golden
		binary.LittleEndian.PutUint64(p[i:], mix(x))
	}
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// describe says in what way a sector is wrong.
func describe(got, want []byte, id, sector uint64) string {
	le := binary.LittleEndian
	switch {
	case string(got[:8]) == string(want[:8]) && le.Uint64(got[8:]) != id:
		return fmt.Sprintf("holds sector %d of another disk", le.Uint64(got[16:]))
	case string(got[:8]) == string(want[:8]) && le.Uint64(got[16:]) != sector:
		return fmt.Sprintf("holds sector %d", le.Uint64(got[16:]))
	}
	zero, first := true, -1
	for i := range got {
		zero = zero && got[i] == 0
		if first < 0 && got[i] != want[i] {
			first = i
		}
	}
	if zero {
		return "is all zeroes"
	}
	return fmt.Sprintf("differs from byte %d on", first)
}
