package blk

import (
	"testing"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// FuzzRequest makes requests of arbitrary bytes: whatever they say, they are
// issued within the disk and the guest's memory, or answered, or stop the device.
func FuzzRequest(f *testing.F) {
	f.Add(headerBytes(typeIn, 0), uint32(512), uint32(1), uint8(0))
	f.Add(headerBytes(typeOut, 0), uint32(0), uint32(1), uint8(0))
	f.Add(append(headerBytes(typeOut, 1), make([]byte, 512)...), uint32(0), uint32(1), uint8(3))
	f.Add(append(headerBytes(typeDiscard, 0), extentBytes(0, 8, 0)...), uint32(0), uint32(1), uint8(1))
	f.Add(append(headerBytes(typeWriteZeroes, 0), extentBytes(1<<60, 8, 1)...), uint32(0), uint32(1), uint8(2))
	f.Add(headerBytes(typeGetID, 0), uint32(20), uint32(1), uint8(0))
	f.Add(headerBytes(typeFlush, 0), uint32(0), uint32(0), uint8(0))
	f.Fuzz(func(t *testing.T, readable []byte, room, statusLen uint32, flags uint8) {
		room %= 8192
		if len(readable) > 64<<10 {
			return
		}
		r := newRigIn(t, virtiotest.NewMemory(t, virtiotest.Range{Base: 0, Size: 256 << 10}), testImage(), 0)
		in := r.mem.Put(readable)
		half := uint32(len(readable) / 2)
		bufs := []virtiotest.Buf{
			{Addr: in, Len: half}, {Addr: in + uint64(half), Len: uint32(len(readable)) - half},
			{Addr: r.mem.Alloc(8192, 16), Len: room, Write: true},
			{Addr: r.mem.Put([]byte{noStatus}), Len: statusLen, Write: true},
		}
		if flags&2 != 0 {
			bufs[2].Addr += 1 << 31
		}
		var head uint16
		if flags&1 != 0 {
			head = r.q.ChainIndirect(nil, bufs...)
		} else {
			head = r.q.Chain(bufs...)
		}
		r.q.Push(head)
		switch r.dq.Pop(&r.req, true) {
		case aio.Empty:
			if !r.dq.vq.Failed() || r.d.Status()&virtio.StatusNeedsReset == 0 {
				t.Fatal("a request disappeared")
			}
			return
		case aio.Issue:
			q := &r.req
			if q.Offset < 0 || q.Length < 0 || q.Offset+q.Length > testSectors*sectorSize || q.Offset%512 != 0 || q.Length%512 != 0 {
				t.Fatalf("issued %+v", *q)
			}
			sum := int64(0)
			for _, s := range q.Segments {
				sum += int64(s.Len)
			}
			if (q.Op == aio.Read || q.Op == aio.Write) != (sum > 0) || sum > 0 && sum != q.Length {
				t.Fatalf("issued %+v", *q)
			}
			r.complete(q, sum, 0)
		}
		r.dq.Publish()
		if h, _, ok := r.q.Take(); !ok || h != head {
			t.Fatal("request was not answered")
		}
	})
}
