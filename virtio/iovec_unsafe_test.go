package virtio_test

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// join returns the bytes iovecs refer to.
func join(s []unix.Iovec) (p []byte) {
	for _, v := range s {
		p = append(p, unsafe.Slice(v.Base, v.Len)...)
	}
	return p
}

// within reports whether an iovec lies inside b.
func within(v unix.Iovec, b []byte) bool {
	first := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	at := uintptr(unsafe.Pointer(v.Base))
	return at >= first && at-first <= uintptr(len(b)) && uintptr(v.Len) <= uintptr(len(b))-(at-first)
}
