package kvm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl carries out req on fd with a pointer argument.
//
// arg stays an unsafe.Pointer until the system call itself: a goroutine's stack
// moves when it grows, and an address already turned into a number would not
// move with it.
func ioctl(fd int, req request, arg unsafe.Pointer) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req.code), uintptr(arg))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR: // a Go runtime signal; nothing has happened yet
		default:
			return 0, req.fail(errno)
		}
	}
}

// ioctlValue is ioctl for requests whose argument is a plain number. v is never
// an address.
func ioctlValue(fd int, req request, v uint64) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req.code), uintptr(v))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
		default:
			return 0, req.fail(errno)
		}
	}
}

// ioctlPtr is ioctl with a typed argument. T has the kernel's layout.
func ioctlPtr[T any](fd int, req request, arg *T) (int, error) {
	return ioctl(fd, req, unsafe.Pointer(arg))
}

// ioctlGet returns what the kernel fills in for req.
func ioctlGet[T any](fd int, req request) (T, error) {
	var v T
	_, err := ioctlPtr(fd, req, &v)
	return v, err
}

// ioctlSet hands v to the kernel.
func ioctlSet[T any](fd int, req request, v T) error {
	_, err := ioctlPtr(fd, req, &v)
	return err
}

// ioctlBytes is ioctl on a buffer the kernel reads or fills.
//
// Preconditions: len(b) is at least what the kernel touches for req.
func ioctlBytes(fd int, req request, b []byte) error {
	_, err := ioctl(fd, req, unsafe.Pointer(unsafe.SliceData(b)))
	return err
}

func sizeOf[T any]() uintptr {
	var v T
	return unsafe.Sizeof(v)
}

// list is a C struct with a flexible array member: a header H, then entries of
// type E, in memory of exactly that length. Neither holds pointers, neither
// needs more than 8-byte alignment, and H's size is a multiple of E's alignment.
type list[H, E any] struct {
	words   []uint64 // backing store; uint64 for the alignment
	header  *H
	entries []E
}

func newList[H, E any](n int) list[H, E] {
	size := sizeOf[H]() + uintptr(n)*sizeOf[E]()
	words := make([]uint64, (size+7)/8)
	base := unsafe.Pointer(unsafe.SliceData(words))
	l := list[H, E]{words: words, header: (*H)(base)}
	if n > 0 {
		l.entries = unsafe.Slice((*E)(unsafe.Add(base, sizeOf[H]())), n)
	}
	return l
}

func (l list[H, E]) ioctl(fd int, req request) (int, error) {
	return ioctl(fd, req, unsafe.Pointer(unsafe.SliceData(l.words)))
}

// deviceAttr is struct kvm_device_attr. addr is a pointer here, so that it
// follows a moving stack and keeps what it points to alive.
type deviceAttr struct {
	_     uint32 // flags
	group uint32
	attr  uint64
	addr  unsafe.Pointer
}

func ioctlDeviceAttr(fd int, req request, group uint32, attr uint64, value *uint64) error {
	a := deviceAttr{group: group, attr: attr, addr: unsafe.Pointer(value)}
	_, err := ioctlPtr(fd, req, &a)
	return err
}
