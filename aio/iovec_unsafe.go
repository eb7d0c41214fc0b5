package aio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovec returns the vector entry for b, which must not be empty and must not move.
func iovec(b []byte) unix.Iovec {
	return unix.Iovec{Base: &b[0], Len: uint64(len(b))}
}

// survey returns the length of all buffers in bytes, and whether address and length of
// each are multiples of align, a power of two.
func survey(iov []unix.Iovec, align int) (length uint64, aligned bool) {
	var bits uint64
	for i := range iov {
		length += iov[i].Len
		bits |= iov[i].Len | uint64(uintptr(unsafe.Pointer(iov[i].Base)))
	}
	return length, bits&uint64(align-1) == 0
}

// advance skips n bytes and returns the rest, and how many bytes were cut off the front of
// its first buffer, in which they end.
//
// Preconditions: iov holds at least n bytes.
func advance(iov []unix.Iovec, n int64) (rest []unix.Iovec, cut uint64) {
	left := uint64(n)
	for len(iov) > 0 && left >= iov[0].Len {
		left -= iov[0].Len
		iov = iov[1:]
	}
	if left > 0 {
		iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(iov[0].Base), left))
		iov[0].Len -= left
	}
	return iov, left
}

// grow undoes advance's cut.
func grow(v *unix.Iovec, cut uint64) {
	v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), -int(cut)))
	v.Len += cut
}

// gather fills dst from the beginning of the buffers.
func gather(dst []byte, iov []unix.Iovec) {
	for i := 0; len(dst) > 0 && i < len(iov); i++ {
		dst = dst[copy(dst, unsafe.Slice(iov[i].Base, iov[i].Len)):]
	}
}

// scatter stores src at the beginning of the buffers.
func scatter(iov []unix.Iovec, src []byte) {
	for i := 0; len(src) > 0 && i < len(iov); i++ {
		src = src[copy(unsafe.Slice(iov[i].Base, iov[i].Len), src):]
	}
}
