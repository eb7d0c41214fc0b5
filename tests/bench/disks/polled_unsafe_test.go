package main

import (
	"sync/atomic"
	"unsafe"
)

// loadHigh and storeHigh access idx, the high half of a ring's first word, of which the low one, flags, is 0.

func loadHigh(ring []byte) uint16 { return uint16(atomic.LoadUint32(first(ring)) >> 16) }

func storeHigh(ring []byte, v uint16) { atomic.StoreUint32(first(ring), uint32(v)<<16) }

func first(ring []byte) *uint32 { return (*uint32)(unsafe.Pointer(&ring[:4][0])) }
