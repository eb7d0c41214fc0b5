package virtio

import (
	"sync/atomic"
	"unsafe"
)

// word returns the 32-bit word of b at byte i, i a multiple of 4. Precondition: b
// starts at an address that is a multiple of 4 (see Memory.Bytes). The index
// expressions check the bounds.
func word(b []byte, i int) *uint32 {
	_ = b[i+3]
	return (*uint32)(unsafe.Pointer(&b[i]))
}

// load16 atomically reads the little-endian 16-bit field at byte i, i even, with
// acquire order.
func load16(b []byte, i int) uint16 {
	w := atomic.LoadUint32(word(b, i&^3))
	return uint16(w >> (8 * (i & 2)))
}

// store32 atomically writes a 32-bit word. Everything written before is visible
// before it; nothing after it is read before it is visible.
func store32(b []byte, i int, v uint32) { atomic.StoreUint32(word(b, i), v) }

// swapLow16 atomically replaces the low half of a word and leaves the high half
// alone, whoever else writes there. Full barrier.
func swapLow16(b []byte, i int, v uint16) {
	p := word(b, i)
	for {
		old := atomic.LoadUint32(p)
		if atomic.CompareAndSwapUint32(p, old, old&^0xffff|uint32(v)) {
			return
		}
	}
}
