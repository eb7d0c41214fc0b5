package virtio

// chainError is why a chain can't be followed to its end. There is no answering
// such a request: nobody knows where its buffers are.
type chainError string

const (
	errLoop          chainError = "descriptor chain is longer than the queue (a loop?)"
	errNextRange     chainError = "descriptor's next is beyond its table"
	errOrder         chainError = "device-readable descriptor after a device-writable one"
	errTooLong       chainError = "descriptor chain describes more than 2^32 bytes"
	errNoIndirect    chainError = "indirect descriptor, but INDIRECT_DESC was not negotiated"
	errNested        chainError = "indirect descriptor inside an indirect table"
	errIndirectNext  chainError = "indirect descriptor with NEXT"
	errIndirectSize  chainError = "indirect table's size is not a multiple of 16, or 0"
	errIndirectTable chainError = "indirect table is not in guest RAM"
)

const maxChainBytes = 1 << 32 // 2.7.5.2

// walk follows the chain at head, makes q.chain of it, and checks every rule of 2.7.5 on private copies
// of its descriptors. The buffers are kept in q.bufs, at most as many as the
// queue's largest size; an indirect table doesn't lengthen that (2.7.5.3.1).
func (q *Queue) walk(head uint16) chainError {
	var nread, nwrite uint64
	bufs := q.bufs[:0]
	table, count, indirect := q.rings.desc, uint32(q.layout.size), false
	readable := -1 // number of readable buffers, once a writable one was seen
	i, seen := head, uint32(0)
	for {
		if seen++; seen > count {
			return errLoop
		}
		d := readDescriptor(table, i)
		if d.flags&descIndirect != 0 {
			t, err := q.indirectTable(d, indirect)
			if err != "" {
				return err
			}
			// Up to here n normal descriptors were followed; the rest is in the table (2.7.5.3.2).
			table, count, indirect = t, min(d.len/descSize, uint32(cap(q.bufs))), true
			i, seen = 0, 0
			continue
		}
		// A descriptor of length 0 describes no byte: it is skipped, address unseen.
		if d.len > 0 {
			write := d.flags&descWrite != 0
			switch {
			case len(bufs) == cap(bufs):
				return errLoop
			case write && readable < 0:
				readable = len(bufs)
			case !write && readable >= 0:
				return errOrder
			}
			bufs = append(bufs, buffer{mem: q.mem.Bytes(d.addr, uint64(d.len)), len: d.len})
			if write {
				nwrite += uint64(d.len)
			} else {
				nread += uint64(d.len)
			}
			if nread+nwrite > maxChainBytes {
				return errTooLong
			}
		}
		if d.flags&descNext == 0 {
			break
		}
		if i = d.next; int(i) >= len(table)/descSize {
			return errNextRange
		}
	}
	if readable < 0 {
		readable = len(bufs)
	}
	q.chain = Chain{mem: q.mem, head: head, readable: bufs[:readable], writable: bufs[readable:], nread: nread, nwrite: nwrite}
	return ""
}

// indirectTable returns the table an indirect descriptor refers to. Its WRITE flag
// means nothing (2.7.5.3.2).
func (q *Queue) indirectTable(d descriptor, nested bool) ([]byte, chainError) {
	switch {
	case q.features&FeatureIndirectDesc == 0:
		return nil, errNoIndirect
	case nested:
		return nil, errNested
	case d.flags&descNext != 0:
		return nil, errIndirectNext
	case d.len == 0 || d.len%descSize != 0:
		return nil, errIndirectSize
	}
	t := q.mem.Bytes(d.addr, uint64(d.len))
	if t == nil {
		return nil, errIndirectTable
	}
	return t, ""
}
