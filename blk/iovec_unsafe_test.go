package blk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory returns the bytes an iovec refers to.
func memory(v unix.Iovec) []byte { return unsafe.Slice(v.Base, v.Len) }
