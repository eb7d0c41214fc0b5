package blk

import (
	"bytes"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

const page = 4096

// sendPages is send with data from byte off of a page on, and the status byte on a page of its own.
func (r *rig) sendPages(typ uint32, payload []byte, off uint64, room int) request {
	rq := request{n: room, status: r.mem.Alloc(page, page)}
	bufs := []virtiotest.Buf{{Addr: r.mem.Put(headerBytes(typ, 0)), Len: headerSize}}
	if payload != nil {
		bufs = append(bufs, virtiotest.Buf{Addr: r.mem.Put(payload), Len: uint32(len(payload))})
	}
	if room > 0 {
		rq.data = r.mem.Alloc(off+uint64(room), page) + off
		bufs = append(bufs, virtiotest.Buf{Addr: rq.data, Len: uint32(room), Write: true})
	}
	rq.head = r.q.Add(append(bufs, virtiotest.Buf{Addr: rq.status, Len: 1, Write: true})...)
	return rq
}

// pagesOf lists the pages of n bytes at gpa.
func pagesOf(gpa, n uint64) (list []uint64) {
	for p := gpa &^ (page - 1); p < gpa+n; p += page {
		list = append(list, p)
	}
	return list
}

// A request's pages are marked when it completes: not before, and in time for the driver to see it.
func TestWrittenPages(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  uint32
		room int
		n    int64
		err  unix.Errno
	}{
		{"read", typeIn, 8192, 8192, 0},
		{"short read", typeIn, 8192, 512, 0},
		{"failed read", typeIn, 8192, 0, unix.EIO},
		{"read that failed half way", typeIn, 8192, 4096, unix.EIO},
		{"write", typeOut, 0, 1024, 0},
		{"failed write", typeOut, 0, 0, unix.EIO},
		{"flush", typeFlush, 0, 0, 0},
	} {
		r := newRig(t, testImage(), 0)
		r.mem.TakeWritten()
		var payload []byte
		if c.typ == typeOut {
			payload = make([]byte, 1024)
		}
		rq := r.sendPages(c.typ, payload, 100, c.room)
		q := r.issued()
		if got := r.mem.TakeWritten(); got != nil {
			t.Errorf("%s: pages %#x are marked at submit", c.name, got)
		}
		r.complete(q, c.n, c.err)
		want := append(pagesOf(rq.status, 1), pagesOf(rq.data, uint64(c.room))...)
		if got := r.mem.TakeWritten(); !slices.Equal(got, want) {
			t.Errorf("%s: pages %#x are marked at completion, want %#x", c.name, got, want)
		}
	}
}

// What the device answers by itself, data and status.
func TestWrittenPagesOfAnswers(t *testing.T) {
	r := newRig(t, testImage(), 0)
	r.mem.TakeWritten()
	for _, c := range []struct {
		name string
		typ  uint32
		room int
		want byte
	}{{"id", typeGetID, 20, statusOK}, {"unknown", 77, 20, statusUnsupp}, {"no sectors", typeIn, 0, statusOK}} {
		rq := r.sendPages(c.typ, nil, 0, c.room)
		if p := r.dq.Pop(&r.req, true); p != aio.Done {
			t.Fatalf("%s: Pop says %d", c.name, p)
		}
		want := pagesOf(rq.status, 1)
		if c.typ == typeGetID {
			want = append(want, pagesOf(rq.data, 20)...)
		}
		if got := r.mem.TakeWritten(); !slices.Equal(got, want) || r.statusOf(rq) != c.want {
			t.Errorf("%s: pages %#x are marked, want %#x", c.name, got, want)
		}
		r.dq.Publish()
	}
}

// The whole way, with direct I/O: pages of aligned buffers and of those that are bounced.
func TestWrittenPagesOfDisk(t *testing.T) {
	for _, off := range []uint64{0, 3} {
		m := newMachine(t)
		k := m.disk("vda", ImageOptions{Direct: true}, Config{QueueSize: 16})
		k.d.Start(virtiotest.Setup{})
		q := k.d.Queues[0]
		const n = 3 * 128 << 10 // more than a bounce buffer
		status, data := m.mem.Alloc(page, page), m.mem.Alloc(n+2*page, page)+off
		m.mem.TakeWritten()
		q.Add(virtiotest.Buf{Addr: m.mem.Put(headerBytes(typeIn, 0)), Len: headerSize},
			virtiotest.Buf{Addr: data, Len: n, Write: true}, virtiotest.Buf{Addr: status, Len: 1, Write: true})
		q.Kick()
		if _, got := q.Wait(); got != n+1 || m.mem.RAM(status, 1)[0] != statusOK {
			t.Fatalf("used length %d, status %d", got, m.mem.RAM(status, 1)[0])
		}
		if !bytes.Equal(m.mem.RAM(data, 8), []byte("diskdisk")) {
			t.Errorf("read %q", m.mem.RAM(data, 8))
		}
		if got, want := m.mem.TakeWritten(), append(pagesOf(status, 1), pagesOf(data, n)...); !slices.Equal(got, want) {
			t.Errorf("offset %d: %d pages are marked, want %d", off, len(got), len(want))
		}
	}
}

// Reads into halves of the same pages race with somebody who collects and copies what was
// written: when the disk is quiet, and all was collected once more, the copy is the memory.
func TestReadsRaceWithCollecting(t *testing.T) {
	const pages, rounds = 8, 400
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{QueueSize: 64})
	k.d.Start(virtiotest.Setup{})
	q := k.d.Queues[0]
	base, status := m.mem.Alloc(pages*page, page), m.mem.Alloc(page, page)
	source := m.mem.RAM(base, pages*page)
	copied := make([]byte, pages*page)
	m.mem.TakeWritten()
	collect := func() {
		for _, p := range m.mem.TakeWritten() {
			if p >= base && p < base+pages*page {
				copy(copied[p-base:][:page], source[p-base:])
			}
		}
	}
	type half struct{ addr, header uint64 }
	var halves []half
	for i := range uint64(2 * pages) {
		halves = append(halves, half{base + i*page/2, m.mem.Put(headerBytes(typeIn, i*page/2/sectorSize))})
	}
	content := make([]byte, pages*page)
	for round := range rounds {
		for i := range content {
			content[i] = byte(round)
		}
		if _, err := unix.Pwrite(k.img.fd, content, 0); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var collecting sync.WaitGroup
		collecting.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					collect()
				}
			}
		})
		for _, h := range halves {
			q.Add(virtiotest.Buf{Addr: h.header, Len: headerSize},
				virtiotest.Buf{Addr: h.addr, Len: page / 2, Write: true}, virtiotest.Buf{Addr: status, Len: 1, Write: true})
		}
		q.Kick()
		for range halves {
			if _, n := q.Wait(); n != page/2+1 {
				t.Fatalf("used length %d", n)
			}
		}
		close(stop)
		collecting.Wait()
		collect()
		if !bytes.Equal(copied, source) || !bytes.Equal(copied, content) {
			t.Fatalf("round %d: the copy is not what the reads brought", round)
		}
	}
}
