// Package ram copies a guest's memory from one process to another while the guest writes to it.
//
//	dirty log ─▶ bitmap ─▶ chunk 0, 4, 8 … ─▶ stream 0 ─▶ ┐
//	   ▲                   chunk 1, 5, 9 … ─▶ stream 1 ─▶ ├─▶ guest memory of the destination
//	 guest, devices        ...                         ─▶ ┘
//
// A pass sends every page that was dirty when it began, and is over when the destination has answered that it
// has them all: so what it took says how fast the link is, whatever the kernels on the way buffer. A page is always sent on the same stream,
// so that an old copy never overtakes a newer one, and it is taken off the dirty log before it is
// read, so that what is written meanwhile comes again. A page of zeroes is an entry in a table.
//
// The package knows no KVM: the log is an interface, and memory is a few ranges of bytes.
package ram

import "math/bits"

// PageSize is the unit of everything here, in bytes.
const PageSize = 4096

// chunkPages is how many pages in a row go on one stream and leave the dirty log together: 2 MiB, and whole words
// of the bitmap.
const chunkPages = 512

const chunkWords = chunkPages / 64

// Region is one contiguous range of guest memory. GPA and length are multiples of PageSize.
type Region struct {
	GPA   uint64 // guest-physical address of Bytes[0]
	Bytes []byte
}

func (r Region) pages() uint64 { return uint64(len(r.Bytes)) / PageSize }

// words is how many words a bitmap of n pages has.
func words(n uint64) int { return int((n + 63) / 64) }

// Log says which pages were written, whoever wrote them. Its methods are called from several
// goroutines, at most one for each region and range of pages.
type Log interface {
	// Written ORs into bitmap what was written since it was last taken off the log: bit p%64 of
	// bitmap[p/64] is page p of the region. What Written reports stays on the log, or at least
	// need not be reported again.
	Written(region int, bitmap []uint64) error

	// Clear takes pages off the log: bit 0 of bitmap is page first, a multiple of 64.
	Clear(region int, first uint64, bitmap []uint64) error
}

func count(bitmap []uint64) (n uint64) {
	for _, w := range bitmap {
		n += uint64(bits.OnesCount64(w))
	}
	return n
}

// A Pages frame: a table of runs, then the content of the runs that have any.
//
//	0         2        4         8
//	| runs    | zeros  | zeros   | run 0 | run 1 | ... | content ...
//
//	run:  0                8          12
//	      | first page     | pages    | kind: 0 content, 1 zeroes |
//
// A page's number is its guest-physical address divided by PageSize. Numbers are little-endian.
const (
	tableHead = 8
	runSize   = 16

	kindContent = 0
	kindZeroes  = 1

	maxRuns    = 128
	maxContent = 256 << 10 // bytes in one frame
)
