package pattern

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Version is one of many writings of the same sectors, so that a reader can tell which one it got:
// an older one (a write was lost), a newer one (a write came late), or parts of several.
type Version struct {
	Epoch uint64 // of the run that wrote it: what an earlier run has left is not taken for this one's
	Seq   uint64 // counts the writings in a run
}

// A sector starts with versionMagic, the hash of the serial, its number, epoch and seq, little-endian; a
// pseudo-random stream of all of them follows.
const (
	versionMagic      = "ebb!vers"
	versionHeaderSize = 40
)

// Fill writes the version's contents of consecutive sectors, from number sector on, into p, which is whole sectors.
func (v Version) Fill(p []byte, serial string, sector uint64) {
	id := diskID(serial)
	for ; len(p) > 0; p = p[SectorSize:] {
		v.fillSector(p[:SectorSize], id, sector)
		sector++
	}
}

// ReadVersion tells which version p is, and checks that it is one, whole, and belongs where it was read.
func ReadVersion(p []byte, serial string, sector uint64) (v Version, err error) {
	id := diskID(serial)
	var want [SectorSize]byte
	for i := 0; i < len(p); i += SectorSize {
		got := p[i : i+SectorSize]
		here := versionOf(got)
		if i == 0 {
			v = here
		}
		at := sector + uint64(i/SectorSize)
		here.fillSector(want[:], id, at)
		switch {
		case string(got[:8]) != versionMagic:
			return v, fmt.Errorf("disk %q sector %d: not written by this", serial, at)
		case string(got) != string(want[:]):
			return v, fmt.Errorf("disk %q sector %d: %s", serial, at, describe(got, want[:], id, at))
		case here != v:
			return v, fmt.Errorf("disk %q sector %d: is of %+v, and sector %d of %+v", serial, at, here, sector, v)
		}
	}
	return v, nil
}

func versionOf(p []byte) Version {
	le := binary.LittleEndian
	return Version{le.Uint64(p[24:]), le.Uint64(p[32:])}
}

func (v Version) fillSector(p []byte, id, sector uint64) {
	le := binary.LittleEndian
	copy(p, versionMagic)
	le.PutUint64(p[8:], id)
	le.PutUint64(p[16:], sector)
	le.PutUint64(p[24:], v.Epoch)
	le.PutUint64(p[32:], v.Seq)
	fillStream(p[versionHeaderSize:], id^(sector+1)*golden^mix(v.Epoch+mix(v.Seq)))
}

// Sum is of a disk's blocks the versions' numbers, in order.
func Sum(seqs []uint64) uint64 {
	sum := uint64(len(seqs))
	for _, s := range seqs {
		sum = mix(sum + golden + s)
	}
	return sum
}

// SumOf reads blocks of a size from r, all of an epoch, and returns their Sum.
func SumOf(r io.ReaderAt, serial string, epoch uint64, block, blocks int) (uint64, error) {
	seqs, buf := make([]uint64, blocks), make([]byte, block)
	for i := range seqs {
		at := int64(i) * int64(block)
		if _, err := r.ReadAt(buf, at); err != nil {
			return 0, fmt.Errorf("disk %q at byte %d: %w", serial, at, err)
		}
		v, err := ReadVersion(buf, serial, uint64(at/SectorSize))
		if err == nil && v.Epoch != epoch {
			err = fmt.Errorf("disk %q at byte %d: epoch %d, not %d", serial, at, v.Epoch, epoch)
		}
		if err != nil {
			return 0, err
		}
		seqs[i] = v.Seq
	}
	return Sum(seqs), nil
}
