package blk

import "encoding/binary"

// sectorSize is the unit of the protocol in bytes, whatever the disk's block size (5.2.4).
const sectorSize = 512

// Feature bits (5.2.3).
const (
	featSegMax      uint64 = 1 << 2
	featReadOnly    uint64 = 1 << 5
	featBlkSize     uint64 = 1 << 6
	featFlush       uint64 = 1 << 9
	featTopology    uint64 = 1 << 10
	featConfigWCE   uint64 = 1 << 11
	featMQ          uint64 = 1 << 12
	featDiscard     uint64 = 1 << 13
	featWriteZeroes uint64 = 1 << 14
)

// Request types (5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13
)

// Request status (5.2.6).
const (
	statusOK     = 0
	statusIOErr  = 1
	statusUnsupp = 2
)

// idSize is the size of the device id string in bytes, padded with zeroes (5.2.6).
const idSize = 20

// header starts every request: type, 4 reserved bytes, sector.
type header struct {
	typ    uint32
	sector uint64
}

const headerSize = 16

func decodeHeader(b *[headerSize]byte) header {
	return header{
		typ:    binary.LittleEndian.Uint32(b[0:]),
		sector: binary.LittleEndian.Uint64(b[8:]),
	}
}

// extent is the payload of DISCARD and WRITE_ZEROES: one segment of it.
type extent struct {
	sector  uint64
	sectors uint32
	flags   uint32
}

const (
	extentSize  = 16
	extentUnmap = 1 // WRITE_ZEROES: may deallocate; not allowed for DISCARD
)

func decodeExtent(b *[extentSize]byte) extent {
	return extent{
		sector:  binary.LittleEndian.Uint64(b[0:]),
		sectors: binary.LittleEndian.Uint32(b[8:]),
		flags:   binary.LittleEndian.Uint32(b[12:]),
	}
}

// Offsets in struct virtio_blk_config (5.2.4).
const (
	cfgCapacity            = 0
	cfgSegMax              = 12
	cfgBlkSize             = 20
	cfgPhysicalExp         = 24
	cfgMinIOSize           = 26
	cfgWriteback           = 32
	cfgNumQueues           = 34
	cfgMaxDiscard          = 36
	cfgMaxDiscardSeg       = 40
	cfgDiscardAlign        = 44
	cfgMaxWriteZeroes      = 48
	cfgMaxWriteZeroesSeg   = 52
	cfgWriteZeroesMayUnmap = 56
	cfgSize                = 60
)
