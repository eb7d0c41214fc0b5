package aio

// The kernel's io_uring interface as far as the ring uses it: include/uapi/linux/io_uring.h.

const (
	setupCQSize       = 1 << 3
	setupClamp        = 1 << 4
	setupSubmitAll    = 1 << 7  // Linux 5.18
	setupCoopTaskrun  = 1 << 8  // Linux 5.19
	setupTaskrunFlag  = 1 << 9  // Linux 5.19
	setupSingleIssuer = 1 << 12 // Linux 6.0
	setupDeferTaskrun = 1 << 13 // Linux 6.1
	setupNoSQArray    = 1 << 16 // Linux 6.6

	featSingleMmap   = 1 << 0
	featNoDrop       = 1 << 1
	featSubmitStable = 1 << 2
	featRsrcTags     = 1 << 10 // came with Linux 5.13, as did multishot polls

	enterGetEvents = 1 << 0

	registerIOWQMaxWorkers = 19 // Linux 5.15
	registerResizeRings    = 33 // Linux 6.13

	sqTaskrun = 1 << 2 // IORING_SQ_TASKRUN

	offSQRing = 0
	offSQEs   = 0x10000000

	opcodeReadv      = 1
	opcodeWritev     = 2
	opcodePollAdd    = 6
	opcodePollRemove = 7
	opcodeRead       = 22
	opcodeWrite      = 23

	sqeAsync     = 1 << 4 // IOSQE_ASYNC
	pollAddMulti = 1 << 0 // in sqe.length

	cqeMore = 1 << 1 // IORING_CQE_F_MORE
)

// sqe is struct io_uring_sqe.
type sqe struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	offset   uint64
	addr     uint64
	length   uint32
	opFlags  uint32 // rw_flags, fsync_flags, poll32_events
	userData uint64
	_        [3]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	result   int32
	flags    uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries    uint32
	cqEntries    uint32
	flags        uint32
	sqThreadCPU  uint32
	sqThreadIdle uint32
	features     uint32
	wqFD         uint32
	_            [3]uint32
	sqOff        sqOffsets
	cqOff        cqOffsets
}

// sqOffsets is struct io_sqring_offsets.
type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array uint32
	_                                                        uint32
	_                                                        uint64
}

// cqOffsets is struct io_cqring_offsets.
type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags uint32
	_                                                        uint32
	_                                                        uint64
}
