package aio

// fifo is a queue in a circular buffer that grows when it is full and never shrinks.
// The zero value is empty.
type fifo[T any] struct {
	buf   []T // length 0 or a power of two
	head  int // index of the oldest
	count int
}

func (f *fifo[T]) len() int { return f.count }

func (f *fifo[T]) push(v T) {
	if f.count == len(f.buf) {
		f.grow()
	}
	f.buf[(f.head+f.count)&(len(f.buf)-1)] = v
	f.count++
}

// pop takes the oldest element; there must be one.
func (f *fifo[T]) pop() T {
	v := f.buf[f.head]
	var zero T
	f.buf[f.head] = zero
	f.head = (f.head + 1) & (len(f.buf) - 1)
	f.count--
	return v
}

func (f *fifo[T]) grow() {
	buf := make([]T, max(8, 2*len(f.buf)))
	for i := range f.count {
		buf[i] = f.buf[(f.head+i)&(len(f.buf)-1)]
	}
	f.buf, f.head = buf, 0
}
