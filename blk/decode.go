package blk

import (
	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
)

// answer is what decode makes of a request: either it is for the engine, or it
// has its status already.
type answer struct {
	issue   bool
	status  byte
	written uint64 // bytes written to the start of the data buffer, without the status
}

var (
	toEngine = answer{issue: true}
	okay     = answer{status: statusOK}
	ioError  = answer{status: statusIOErr}
	unsupp   = answer{status: statusUnsupp}
)

// decode turns a chain into an engine request or an answer. room is the number of
// device-writable bytes before the status byte. The chain's bytes are read once.
func (d *Device) decode(c *virtio.Chain, room uint64, r *aio.Request) answer {
	var raw [headerSize]byte
	in := c.Readable()
	if !in.Read(raw[:], 0) {
		return ioError // shorter than a header, or outside RAM
	}
	h := decodeHeader(&raw)
	r.Durable, r.Unmap, r.Segments = false, false, r.Segments[:0]
	switch h.typ {
	case typeIn:
		if a := d.transfer(aio.Read, h.sector, room, r); !a.issue {
			return a
		}
		var ok bool
		if r.Segments, ok = c.Writable().Segments(r.Segments, 0, room); !ok {
			return ioError
		}
		return toEngine
	case typeOut:
		if d.image.readOnly {
			return ioError // 5.2.6.2
		}
		n := in.Len() - headerSize
		if a := d.transfer(aio.Write, h.sector, n, r); !a.issue {
			return a
		}
		var ok bool
		if r.Segments, ok = in.Segments(r.Segments, headerSize, n); !ok {
			return ioError
		}
		return toEngine
	case typeFlush:
		r.Op, r.Offset, r.Length = aio.Flush, 0, 0
		return toEngine
	case typeDiscard:
		return d.extentRequest(aio.Discard, featDiscard, maxDiscardSectors, in, r)
	case typeWriteZeroes:
		return d.extentRequest(aio.WriteZeroes, featWriteZeroes, maxWriteZeroesSectors, in, r)
	case typeGetID:
		n := min(room, idSize)
		if !c.Writable().Write(d.serial[:n], 0) {
			return ioError
		}
		return answer{status: statusOK, written: n}
	}
	return unsupp
}

// transfer fills in a read or a write of n bytes, but not its segments.
func (d *Device) transfer(op aio.Op, sector, n uint64, r *aio.Request) answer {
	if n%sectorSize != 0 {
		return ioError
	}
	return d.place(op, sector, n/sectorSize, r)
}

// extentRequest decodes a DISCARD or WRITE_ZEROES with its one extent.
func (d *Device) extentRequest(op aio.Op, feature uint64, limit uint32, in virtio.Reader, r *aio.Request) answer {
	var raw [extentSize]byte
	switch {
	case d.image.readOnly:
		return ioError
	case d.features.Load()&feature == 0:
		return unsupp
	case in.Len()-headerSize != maxExtents*extentSize || !in.Read(raw[:], headerSize):
		return ioError
	}
	e := decodeExtent(&raw)
	allowed := uint32(0)
	if op == aio.WriteZeroes {
		allowed = extentUnmap
	}
	if e.flags&^allowed != 0 {
		return unsupp // 5.2.6.2
	}
	if e.sectors > limit {
		return ioError
	}
	r.Unmap = e.flags&extentUnmap != 0
	return d.place(op, e.sector, uint64(e.sectors), r)
}

// place checks that a range of sectors is on the disk and fills it in.
func (d *Device) place(op aio.Op, sector, sectors uint64, r *aio.Request) answer {
	capacity := d.capacity.Load()
	if sector > capacity || sectors > capacity-sector {
		return ioError
	}
	r.Op = op
	r.Offset, r.Length = int64(sector*sectorSize), int64(sectors*sectorSize)
	// The guest knows the block size; the kernel would refuse the request anyway.
	if block := int64(d.image.blockSize); r.Offset%block != 0 || r.Length%block != 0 {
		return ioError
	}
	if sectors == 0 {
		return okay // nothing to do
	}
	r.Durable = op != aio.Read && d.durable.Load()
	return toEngine
}
