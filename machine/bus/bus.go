// Package bus routes guest accesses by address: one Bus for I/O ports, one for
// memory that is not RAM.
package bus

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Handler is what answers in a range. Several vCPU goroutines may call it at
// once. off counts from the start of the range; len(p) is 1, 2, 4 or 8, and the
// access lies within the range.
type Handler interface {
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
}

type span struct {
	base, size uint64
	handler    Handler
}

// Bus is a set of ranges that don't overlap. The zero value has none. Accesses
// take no lock: a change swaps in a new list. Add and Remove may be called from
// any goroutine, a handler included.
type Bus struct {
	mu    sync.Mutex // serializes changes
	spans atomic.Pointer[[]span]
}

func (b *Bus) list() []span {
	if p := b.spans.Load(); p != nil {
		return *p
	}
	return nil
}

// Add lets h answer at [base, base+size). It fails if something else does.
func (b *Bus) Add(base, size uint64, h Handler) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.list()
	if size == 0 || base+size < base {
		return fmt.Errorf("a range of %#x bytes at %#x is none", size, base)
	}
	i, _ := slices.BinarySearchFunc(old, base, compare)
	if i < len(old) && old[i].base-base < size {
		return fmt.Errorf("%#x-%#x is taken at %#x", base, base+size-1, old[i].base)
	}
	if i > 0 && base-old[i-1].base < old[i-1].size {
		return fmt.Errorf("%#x-%#x is taken at %#x", base, base+size-1, old[i-1].base)
	}
	spans := slices.Insert(slices.Clone(old), i, span{base, size, h})
	b.spans.Store(&spans)
	return nil
}

// Remove ends the range that starts at base, if there is one. An access under
// way may still reach its handler.
func (b *Bus) Remove(base uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.list()
	if i, ok := slices.BinarySearchFunc(old, base, compare); ok {
		spans := slices.Delete(slices.Clone(old), i, i+1)
		b.spans.Store(&spans)
	}
}

// Read fills p from addr; where nothing answers it reads all ones, as an empty
// bus does.
func (b *Bus) Read(addr uint64, p []byte) {
	if s := b.find(addr, len(p)); s != nil {
		s.handler.Read(addr-s.base, p)
		return
	}
	for i := range p {
		p[i] = 0xff
	}
}

// Write stores p at addr; where nothing answers it is dropped.
func (b *Bus) Write(addr uint64, p []byte) {
	if s := b.find(addr, len(p)); s != nil {
		s.handler.Write(addr-s.base, p)
	}
}

func compare(s span, addr uint64) int {
	switch {
	case s.base < addr:
		return -1
	case s.base > addr:
		return 1
	default:
		return 0
	}
}

// find returns the range that holds all n bytes at addr.
func (b *Bus) find(addr uint64, n int) *span {
	spans := b.list()
	i, ok := slices.BinarySearchFunc(spans, addr, compare)
	if !ok {
		i--
	}
	if i < 0 {
		return nil
	}
	s := &spans[i]
	if off := addr - s.base; off >= s.size || uint64(n) > s.size-off {
		return nil
	}
	return s
}
