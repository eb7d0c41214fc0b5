package aio

// The kernel's Linux AIO interface: include/uapi/linux/aio_abi.h, and struct aio_ring of fs/aio.c.

const (
	iocbPread   = 0 // IOCB_CMD_*
	iocbPwrite  = 1
	iocbPreadv  = 7
	iocbPwritev = 8

	iocbResFD = 1 << 0 // IOCB_FLAG_RESFD

	aioRingMagic = 0xa10a10a1
)

// iocb is struct iocb on a little-endian machine.
type iocb struct {
	data    uint64
	_       uint32 // aio_key
	rwFlags uint32
	opcode  uint16
	_       uint16 // aio_reqprio
	fd      uint32
	buf     uint64
	nbytes  uint64 // of a vector: its entries
	offset  int64
	_       uint64
	flags   uint32
	resFD   uint32
}

// ioEvent is struct io_event.
type ioEvent struct {
	data uint64
	obj  uint64
	res  int64
	res2 int64
}

// aioRing is struct aio_ring: what the kernel maps into the process at the address that is
// the context's id. The events follow it.
type aioRing struct {
	id, nr           uint32
	head, tail       uint32 // head is ours
	magic            uint32
	compatFeatures   uint32 // 1
	incompatFeatures uint32 // 0: the layout is as here
	headerLength     uint32 // bytes
}

// event is the engine's view of it.
func (e *ioEvent) event() event {
	return event{kind: eventDone, id: e.data, result: tried(int32(e.res))}
}
