package blk

import (
	"encoding/binary"
	"math/bits"
)

// Limits on requests without data. Their cost is the host file system's and has
// no other bound, and a request in flight can't be called back (a drain has to
// wait for it), so they are kept short; guests split what is longer.
const (
	maxDiscardSectors     = 256 << 20 / sectorSize // 256 MiB
	maxWriteZeroesSectors = 64 << 20 / sectorSize  // 64 MiB; may mean writing that much
	maxExtents            = 1                      // segments per request
)

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	f := featSegMax | featBlkSize | featTopology | featFlush | featConfigWCE
	if d.image.readOnly {
		// Without CONFIG_WCE: there are no writes whose cache mode could matter.
		f = f&^featConfigWCE | featReadOnly
	} else {
		if d.image.discard {
			f |= featDiscard
		}
		if d.image.zeroes {
			f |= featWriteZeroes
		}
	}
	if d.queueCount > 1 {
		f |= featMQ
	}
	return f
}

// ReadConfig implements virtio.Device. Padding and fields of features that are
// not offered are zero.
func (d *Device) ReadConfig(off int, p []byte) {
	clear(p)
	if off < 0 || off >= cfgSize {
		return
	}
	var b [cfgSize]byte
	d.putConfig(&b)
	copy(p, b[off:])
}

func (d *Device) putConfig(b *[cfgSize]byte) {
	le, img := binary.LittleEndian, d.image
	features := d.Features()
	le.PutUint64(b[cfgCapacity:], d.capacity.Load())
	le.PutUint32(b[cfgSegMax:], uint32(d.queueSize-2)) // header and status take a descriptor each
	le.PutUint32(b[cfgBlkSize:], uint32(img.blockSize))
	b[cfgPhysicalExp] = byte(bits.TrailingZeros(uint(img.physicalSize / img.blockSize)))
	le.PutUint16(b[cfgMinIOSize:], uint16(img.physicalSize/img.blockSize))
	if d.writeback.Load() {
		b[cfgWriteback] = 1
	}
	le.PutUint16(b[cfgNumQueues:], uint16(d.queueCount))
	if features&featDiscard != 0 {
		le.PutUint32(b[cfgMaxDiscard:], maxDiscardSectors)
		le.PutUint32(b[cfgMaxDiscardSeg:], maxExtents)
		le.PutUint32(b[cfgDiscardAlign:], uint32(img.physicalSize/sectorSize))
	}
	if features&featWriteZeroes != 0 {
		le.PutUint32(b[cfgMaxWriteZeroes:], maxWriteZeroesSectors)
		le.PutUint32(b[cfgMaxWriteZeroesSeg:], maxExtents)
		b[cfgWriteZeroesMayUnmap] = 1
	}
}

// WriteConfig implements virtio.Device: the only field a driver may write is the
// cache mode, and only if that was negotiated.
func (d *Device) WriteConfig(off int, p []byte) {
	if off != cfgWriteback || len(p) != 1 || d.features.Load()&featConfigWCE == 0 {
		return
	}
	d.writeback.Store(p[0] != 0)
	d.setDurable()
}

// Negotiated implements virtio.Negotiator.
func (d *Device) Negotiated(features uint64) error {
	d.features.Store(features)
	// 5.2.5.2: with CONFIG_WCE but without FLUSH the disk starts as writethrough.
	d.writeback.Store(features&featConfigWCE == 0 || features&featFlush != 0)
	d.setDurable()
	return nil
}

// setDurable decides whether writes have to be on stable storage when they
// complete (5.2.6.2): the driver chose writethrough, or it can't flush. Requests
// popped from now on follow it.
func (d *Device) setDurable() {
	f := d.features.Load()
	d.durable.Store(f&featFlush == 0 || f&featConfigWCE != 0 && !d.writeback.Load())
}
