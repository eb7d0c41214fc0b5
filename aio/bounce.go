package aio

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// bounceChunk is the size of a chunk in bytes: the most one operation of a bounced
	// transfer moves. Longer transfers go chunk by chunk, as if each came back short.
	bounceChunk = 128 << 10

	// bounceChunks is how many a port has, and the most bounced transfers in flight on it:
	// 2 MiB of address space, of which memory is taken only when it is used.
	bounceChunks = 16

	// maxAlign is the coarsest alignment of buffers a port may ask for, in bytes: what
	// mapped memory has.
	maxAlign = 4096
)

// bouncePool is aligned memory for transfers whose guest buffers the file can't take
// (O_DIRECT). It belongs to one port, so that a guest with odd buffers slows down that
// disk only. A port pops only while a chunk is free (Port.open), so whoever needs one has
// it. The zero value is that of a port that never needs any.
type bouncePool struct {
	memory []byte // nil: no alignment is asked for
	free   [][]byte
}

func newBouncePool(align int) (bouncePool, error) {
	if align <= 1 {
		return bouncePool{}, nil
	}
	memory, err := unix.Mmap(-1, 0, bounceChunk*bounceChunks, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return bouncePool{}, fmt.Errorf("map bounce memory: %w", err)
	}
	b := bouncePool{memory: memory}
	for i := range bounceChunks {
		b.free = append(b.free, memory[i*bounceChunk:(i+1)*bounceChunk:(i+1)*bounceChunk])
	}
	return b, nil
}

// available reports whether a transfer that needs a chunk would get one.
func (b *bouncePool) available() bool { return b.memory == nil || len(b.free) > 0 }

// get takes a chunk.
//
// Preconditions: available.
func (b *bouncePool) get() []byte {
	chunk := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	return chunk
}

// put gives a chunk back; nil is none.
func (b *bouncePool) put(chunk []byte) {
	if chunk != nil {
		b.free = append(b.free, chunk)
	}
}

// close gives the memory back. No chunk is in use.
func (b *bouncePool) close() {
	if b.memory != nil {
		_ = unix.Munmap(b.memory)
		*b = bouncePool{}
	}
}
