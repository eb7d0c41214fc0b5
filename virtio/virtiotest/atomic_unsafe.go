package virtiotest

import (
	"sync/atomic"
	"unsafe"
)

// loadHalf and storeHalf access one half of an aligned word that both sides share.
func loadHalf(b []byte, high bool) uint16 {
	w := atomic.LoadUint32((*uint32)(unsafe.Pointer(&b[0])))
	if high {
		return uint16(w >> 16)
	}
	return uint16(w)
}

func storeHalf(b []byte, high bool, v uint16) {
	p := (*uint32)(unsafe.Pointer(&b[0]))
	for {
		old := atomic.LoadUint32(p)
		w := old&^0xffff | uint32(v)
		if high {
			w = old&0xffff | uint32(v)<<16
		}
		if atomic.CompareAndSwapUint32(p, old, w) {
			return
		}
	}
}
