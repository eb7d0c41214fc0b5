package memory

import (
	"sync/atomic"
	"unsafe"
)

// counter is the first word of a page.
func counter(mem []byte, page int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&mem[page*PageSize]))
}
