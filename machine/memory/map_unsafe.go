package memory

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapAligned maps size bytes of zeroed anonymous memory at a host address that is
// a multiple of Alignment. KVM maps a huge page into the guest only where guest
// and host address agree modulo its size, and older kernels place a mapping
// anywhere.
func mapAligned(size uint64) ([]byte, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size+Alignment), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	head := uintptr(-uint64(uintptr(p)) % Alignment)
	start := unsafe.Add(p, head)
	// What sticks out is given back; unmapping part of a mapping can only fail if
	// the process has too many, and then it merely stays.
	if head > 0 {
		_ = unix.MunmapPtr(p, head)
	}
	if tail := uintptr(Alignment) - head; tail > 0 {
		_ = unix.MunmapPtr(unsafe.Add(start, size), tail)
	}
	return unsafe.Slice((*byte)(start), size), nil
}

// unmap gives back what mapAligned returned.
func unmap(b []byte) {
	_ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)))
}

// hostAddress is where the first byte is in this process.
func hostAddress(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
