package virtio_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// FuzzChain puts arbitrary bytes into a descriptor table, an indirect table behind it and the available
// ring. Whatever they are: no panic, nothing outside RAM, bounded chains, and
// not a byte of memory changes.
func FuzzChain(f *testing.F) {
	desc := func(addr uint64, n uint32, flags, next uint16) []byte {
		var b [16]byte
		virtiotest.PutDesc(b[:], addr, n, flags, next)
		return b[:]
	}
	const table, size = 0x2000, 8
	f.Add([]byte{1, 0, 0}, desc(0x3000, 16, 0, 0))
	f.Add([]byte{2, 0, 0, 1}, append(desc(0x3000, 16, virtiotest.Next, 1), desc(0x3000, 512, virtiotest.Write, 0)...))
	f.Add([]byte{1, 1, 0}, desc(table+0x800, 32, virtiotest.Indirect, 0))
	f.Add([]byte{1, 0, 0}, desc(0x3000, 16, virtiotest.Next, 0))
	f.Add([]byte{9, 0, 0}, desc(1<<63, 0xffffffff, virtiotest.Write, 0))
	f.Fuzz(func(t *testing.T, avail, descs []byte) {
		r := newFuzzRig(t, size)
		q := r.d.Queues[0]
		dq := r.dev.queues[0]
		copy(r.mem.RAM(q.Desc, 16*size), descs)
		if len(descs) > 16*size {
			copy(r.mem.RAM(table+0x800, 0x800), descs[16*size:])
		}
		if len(avail) < 3 {
			return
		}
		ring := r.mem.RAM(q.Avail+4, 2*size)
		for i, b := range avail[2:] {
			if i < size {
				binary.LittleEndian.PutUint16(ring[2*i:], uint16(b))
			}
		}
		q.SetAvailIdx(uint16(avail[0]) | uint16(avail[1])<<8&0x100)
		ram := r.mem.RAM(0, fuzzRAM)
		before := append([]byte(nil), ram...)
		for n := 0; ; n++ {
			c, ok := dq.Next()
			if !ok {
				break
			}
			if n > size {
				t.Fatal("more chains than the queue can hold")
			}
			checkSpan(t, ram, c.Readable().Len(), c.Readable().Segments)
			checkSpan(t, ram, c.Writable().Len(), c.Writable().Segments)
			if l := c.Writable().Len(); l > 0 {
				c.Writable().Byte(l - 1)
			}
		}
		if !bytes.Equal(before, ram) {
			t.Fatal("memory changed")
		}
	})
}

const fuzzRAM = 64 << 10

func newFuzzRig(t *testing.T, size uint16) *rig {
	r := &rig{T: t, dev: &testDevice{sizes: []uint16{size}}, host: virtiotest.NewHost(t),
		mem: virtiotest.NewMemory(t, virtiotest.Range{Base: 0, Size: fuzzRAM})}
	var err error
	if r.pci, err = virtio.NewPCI(r.dev, r.mem, r.host, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.pci.Close() }) //nolint:errcheck // checked elsewhere
	r.d = virtiotest.Probe(t, r.mem, r.host, r.pci)
	r.startWith(virtiotest.Setup{Features: indirect | eventIdx})
	return r
}

func checkSpan(t *testing.T, ram []byte, n uint64, segments func([]unix.Iovec, uint64, uint64) ([]unix.Iovec, bool)) {
	t.Helper()
	if n > 1<<32 {
		t.Fatalf("%d bytes", n)
	}
	s, ok := segments(nil, 0, n)
	if !ok {
		return // some of it is not in RAM
	}
	for _, v := range s {
		if v.Len == 0 || !within(v, ram) {
			t.Fatalf("segment of %d bytes outside RAM", v.Len)
		}
		n -= v.Len
	}
	if n != 0 {
		t.Fatalf("segments are %d bytes short", n)
	}
}
