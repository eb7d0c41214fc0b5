package virtiotest

import "unsafe"

// Wrote implements virtio.Memory. What isn't RAM fails the test.
func (m *Memory) Wrote(p *byte, n uint64) {
	at := uint64(uintptr(unsafe.Pointer(p)))
	for _, r := range m.ranges {
		off := at - uint64(uintptr(unsafe.Pointer(unsafe.SliceData(r.mem))))
		if size := uint64(len(r.mem)); off >= size || n == 0 || n > size-off {
			continue
		}
		for page := off / pageSize; page <= (off+n-1)/pageSize; page++ {
			r.written[page].Store(true)
		}
		return
	}
	m.t.Errorf("virtiotest: a device says it wrote %d bytes at host address %#x, which are not guest RAM", n, at)
}

// TakeWritten returns the guest addresses of the pages that devices said they wrote since
// the last call, in ascending order within a range.
func (m *Memory) TakeWritten() (pages []uint64) {
	for _, r := range m.ranges {
		for i := range r.written {
			if r.written[i].Swap(false) {
				pages = append(pages, r.base+uint64(i)*pageSize)
			}
		}
	}
	return pages
}
