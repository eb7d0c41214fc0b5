package blk

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// 2.7.4.1: header, data and status split and joined in any way, direct or
// indirect, mean the same; what the driver gave to be read is never written
// (2.7.5.1). A model of the disk says what every read has to return.
func TestAnyFraming(t *testing.T) {
	r := newRig(t, testImage(), 0)
	disk := make([]byte, testSectors*sectorSize)
	model := bytes.Clone(disk)
	rapid.Check(t, func(rt *rapid.T) {
		r.d.Reset()
		r.mem.Reset()
		r.d.Start(virtiotest.Setup{})
		r.q = r.d.Queues[0]
		for range rapid.IntRange(1, 4).Draw(rt, "requests") {
			sectors := rapid.IntRange(1, 4).Draw(rt, "sectors")
			sector := rapid.IntRange(0, 16-sectors).Draw(rt, "sector")
			want := model[sector*sectorSize : (sector+sectors)*sectorSize]
			write := rapid.Bool().Draw(rt, "write")
			readable, room := headerBytes(typeIn, uint64(sector)), len(want)
			if write {
				data := rapid.SliceOfN(rapid.Byte(), len(want), len(want)).Draw(rt, "data")
				copy(want, data)
				readable, room = append(headerBytes(typeOut, uint64(sector)), data...), 0
			}
			bufs, in := cut(rt, r, readable, false)
			wbufs, out := cut(rt, r, bytes.Repeat([]byte{noStatus}, room+1), true)
			bufs = append(bufs, wbufs...)
			var head uint16
			if rapid.Bool().Draw(rt, "indirect") {
				head = r.q.ChainIndirect(bufs[:1], bufs[1:]...)
			} else {
				head = r.q.Chain(bufs...)
			}
			r.q.Push(head)
			q := r.issued()
			n := serve(disk, q)
			r.complete(q, n, 0)
			r.dq.Publish()
			got := collect(r, out)
			if h, n, ok := r.q.Take(); !ok || h != head || n != uint32(room+1) || got[room] != statusOK {
				rt.Fatalf("used %v, %d bytes, status %d", ok, n, got[room])
			}
			if !write && !bytes.Equal(got[:room], want) {
				rt.Fatal("read returned something else")
			}
			if !bytes.Equal(collect(r, in), readable) {
				rt.Fatal("device-readable bytes changed")
			}
		}
		if !bytes.Equal(disk, model) {
			rt.Fatal("disk holds something else")
		}
	})
}

// cut puts p into up to six buffers of random sizes and returns each byte's address.
func cut(rt *rapid.T, r *rig, p []byte, write bool) (bufs []virtiotest.Buf, addrs []uint64) {
	for len(p) > 0 {
		n := rapid.IntRange(0, len(p)).Draw(rt, "piece")
		if len(bufs) == 5 {
			n = len(p)
		}
		at := r.mem.Put(p[:n])
		for i := range n {
			addrs = append(addrs, at+uint64(i))
		}
		bufs = append(bufs, virtiotest.Buf{Addr: at, Len: uint32(n), Write: write})
		p = p[n:]
	}
	return bufs, addrs
}

func collect(r *rig, addrs []uint64) []byte {
	p := make([]byte, len(addrs))
	for i, a := range addrs {
		p[i] = r.mem.RAM(a, 1)[0]
	}
	return p
}

// serve carries out a request on a disk that is a slice.
func serve(disk []byte, q *aio.Request) (n int64) {
	at := q.Offset
	for _, s := range q.Segments {
		b := memory(s)
		switch q.Op {
		case aio.Read:
			copy(b, disk[at:])
		case aio.Write:
			copy(disk[at:], b)
		}
		at += int64(len(b))
	}
	return at - q.Offset
}
