package blk

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// What reaches the engine, and as what.
func TestDecode(t *testing.T) {
	r := newRig(t, testImage(), 0)
	for _, c := range []struct {
		name    string
		typ     uint32
		sector  uint64
		payload []byte
		room    int
		want    aio.Request
	}{
		{"zeroes that may unmap", typeWriteZeroes, 0, extentBytes(0, testSectors, 1), 0, aio.Request{Op: aio.WriteZeroes, Unmap: true, Length: testSectors * 512}},
		{"read", typeIn, 3, nil, 1024, aio.Request{Op: aio.Read, Offset: 1536, Length: 1024}},
		{"read the last sector", typeIn, testSectors - 1, nil, 512, aio.Request{Op: aio.Read, Offset: (testSectors - 1) * 512, Length: 512}},
		{"read it all", typeIn, 0, nil, testSectors * 512, aio.Request{Op: aio.Read, Length: testSectors * 512}},
		{"read, with bytes behind the header", typeIn, 0, []byte{1, 2, 3}, 512, aio.Request{Op: aio.Read, Length: 512}},
		{"write", typeOut, 2, make([]byte, 1536), 0, aio.Request{Op: aio.Write, Offset: 1024, Length: 1536}},
		{"write, with room for more than the status", typeOut, 2, make([]byte, 512), 7, aio.Request{Op: aio.Write, Offset: 1024, Length: 512}},
		{"flush", typeFlush, 0, nil, 0, aio.Request{Op: aio.Flush}},
		{"flush with a sector", typeFlush, 99999, nil, 0, aio.Request{Op: aio.Flush}},
		{"discard", typeDiscard, 0, extentBytes(8, 16, 0), 0, aio.Request{Op: aio.Discard, Offset: 4096, Length: 8192}},
		{"zeroes", typeWriteZeroes, 0, extentBytes(8, 16, 0), 0, aio.Request{Op: aio.WriteZeroes, Offset: 4096, Length: 8192}},
	} {
		rq := r.send(c.typ, c.sector, c.payload, c.room)
		got := r.issued()
		if got.Op != c.want.Op || got.Durable != c.want.Durable || got.Unmap != c.want.Unmap || got.Offset != c.want.Offset || got.Length != c.want.Length {
			t.Errorf("%s: %+v, want %+v", c.name, *got, c.want)
		}
		sum := int64(0)
		for _, s := range got.Segments {
			sum += int64(s.Len)
		}
		data := got.Op == aio.Read || got.Op == aio.Write
		if data && sum != got.Length || !data && sum != 0 {
			t.Errorf("%s: segments of %d bytes for %d", c.name, sum, got.Length)
		}
		n := int64(0)
		if data {
			n = got.Length
		}
		r.complete(got, n, 0)
		want := uint32(1)
		switch {
		case c.typ == typeIn:
			want = uint32(c.room) + 1
		case c.room > 0:
			want = 0 // the status lies behind a gap nobody wrote
		}
		r.used(c.name, rq, statusOK, want)
		r.mem.Reset()
		r.d.Reset()
		r.d.Start(virtiotest.Setup{})
		r.q = r.d.Queues[0]
	}
}

// What the device answers by itself. Bad requests fail alone: the next one is fine.
func TestAnswered(t *testing.T) {
	huge := ^uint64(0)
	for _, c := range []struct {
		name    string
		typ     uint32
		sector  uint64
		payload []byte
		room    int
		status  byte
		used    uint32
	}{
		{"unknown type", 99, 0, nil, 0, statusUnsupp, 1},
		{"SCSI command", 2, 0, nil, 0, statusUnsupp, 1},
		{"barrier bit", 0x80000000, 0, nil, 512, statusUnsupp, 0},
		{"secure erase", 14, 0, extentBytes(0, 1, 0), 0, statusUnsupp, 1},
		{"zone report", 16, 0, nil, 64, statusUnsupp, 0},
		{"id", typeGetID, 0, nil, 20, statusOK, 21},
		{"id, little room", typeGetID, 0, nil, 5, statusOK, 6},
		{"id, no room", typeGetID, 0, nil, 0, statusOK, 1},
		{"id, much room", typeGetID, 0, nil, 64, statusOK, 20},
		{"read beyond the end", typeIn, testSectors, nil, 512, statusIOErr, 0},
		{"read across the end", typeIn, testSectors - 1, nil, 1024, statusIOErr, 0},
		{"read, sector overflows", typeIn, huge, nil, 512, statusIOErr, 0},
		{"read, byte offset overflows", typeIn, 1 << 55, nil, 512, statusIOErr, 0},
		{"read, not a multiple of 512", typeIn, 0, nil, 513, statusIOErr, 0},
		{"read of nothing", typeIn, 0, nil, 0, statusOK, 1},
		{"read of nothing beyond the end", typeIn, testSectors + 1, nil, 0, statusIOErr, 1},
		{"write beyond the end", typeOut, testSectors, make([]byte, 512), 0, statusIOErr, 1},
		{"write across the end", typeOut, testSectors - 1, make([]byte, 1024), 0, statusIOErr, 1},
		{"write, not a multiple of 512", typeOut, 0, make([]byte, 100), 0, statusIOErr, 1},
		{"write of nothing", typeOut, 0, nil, 0, statusOK, 1},
		{"discard with unmap", typeDiscard, 0, extentBytes(0, 8, 1), 0, statusUnsupp, 1},
		{"discard with an unknown flag", typeDiscard, 0, extentBytes(0, 8, 1<<31), 0, statusUnsupp, 1},
		{"discard beyond the end", typeDiscard, 0, extentBytes(testSectors, 1, 0), 0, statusIOErr, 1},
		{"discard, sector overflows", typeDiscard, 0, extentBytes(huge, 8, 0), 0, statusIOErr, 1},
		{"discard longer than the limit", typeDiscard, 0, extentBytes(0, maxDiscardSectors+1, 0), 0, statusIOErr, 1},
		{"discard of nothing", typeDiscard, 0, extentBytes(0, 0, 0), 0, statusOK, 1},
		{"discard without a segment", typeDiscard, 0, nil, 0, statusIOErr, 1},
		{"discard with half a segment", typeDiscard, 0, extentBytes(0, 8, 0)[:8], 0, statusIOErr, 1},
		{"discard with two segments", typeDiscard, 0, append(extentBytes(0, 8, 0), extentBytes(8, 8, 0)...), 0, statusIOErr, 1},
		{"zeroes with an unknown flag", typeWriteZeroes, 0, extentBytes(0, 8, 2), 0, statusUnsupp, 1},
		{"zeroes across the end", typeWriteZeroes, 0, extentBytes(testSectors-1, 2, 0), 0, statusIOErr, 1},
		{"zeroes longer than the limit", typeWriteZeroes, 0, extentBytes(0, maxWriteZeroesSectors+1, 0), 0, statusIOErr, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, testImage(), 0)
			rq := r.send(c.typ, c.sector, c.payload, c.room)
			r.answered(c.name, rq, c.status, c.used)
			if c.room > 0 && c.typ != typeGetID && !bytes.Equal(r.dataOf(rq), bytes.Repeat([]byte{0xaa}, c.room)) {
				t.Error("data was written")
			}
			rq = r.send(typeIn, 0, nil, 512)
			r.complete(r.issued(), 512, 0)
			r.used("next request", rq, statusOK, 513)
		})
	}
}

func TestGetID(t *testing.T) {
	r := newRig(t, testImage(), 0)
	rq := r.send(typeGetID, 0, nil, 24)
	r.answered("id", rq, statusOK, 20)
	if got := string(r.dataOf(rq)); got != "ebb-serial-012345678"+"\xaa\xaa\xaa\xaa" {
		t.Errorf("%q", got)
	}
}

// Requests that aren't made of what they should be made of.
func TestMalformed(t *testing.T) {
	r := newRig(t, testImage(), 0)
	mem := r.mem
	head := func(typ uint32) virtiotest.Buf {
		return virtiotest.Buf{Addr: mem.Put(headerBytes(typ, 0)), Len: headerSize}
	}
	status := func() virtiotest.Buf { return virtiotest.Buf{Addr: mem.Put([]byte{noStatus}), Len: 1, Write: true} }
	outside := uint64(1 << 31)
	for _, c := range []struct {
		name string
		bufs []virtiotest.Buf
		used uint32
	}{
		{"header too short", []virtiotest.Buf{{Addr: head(typeOut).Addr, Len: 15}, status()}, 1},
		{"no header", []virtiotest.Buf{status()}, 1},
		{"write-only header", []virtiotest.Buf{{Addr: head(typeIn).Addr, Len: headerSize, Write: true}, status()}, 0},
		{"header outside RAM", []virtiotest.Buf{{Addr: outside, Len: headerSize}, status()}, 1},
		{"header half outside RAM", []virtiotest.Buf{{Addr: 16<<20 - 8, Len: headerSize}, status()}, 1},
		{"read into memory outside RAM", []virtiotest.Buf{head(typeIn), {Addr: outside, Len: 512, Write: true}, status()}, 0},
		{"read into memory that overflows", []virtiotest.Buf{head(typeIn), {Addr: ^uint64(0) - 10, Len: 512, Write: true}, status()}, 0},
		{"read half outside RAM", []virtiotest.Buf{head(typeIn), {Addr: mem.Alloc(512, 16), Len: 512, Write: true}, {Addr: outside, Len: 512, Write: true}, status()}, 0},
		{"write from outside RAM", []virtiotest.Buf{head(typeOut), {Addr: outside, Len: 512}, status()}, 1},
		{"discard segment outside RAM", []virtiotest.Buf{head(typeDiscard), {Addr: outside, Len: 16}, status()}, 1},
		{"id outside RAM", []virtiotest.Buf{head(typeGetID), {Addr: outside, Len: 20, Write: true}, status()}, 0},
	} {
		at := c.bufs[len(c.bufs)-1].Addr
		rq := request{head: r.q.Add(c.bufs...), status: at}
		r.answered(c.name, rq, statusIOErr, c.used)
	}
	// Empty buffers anywhere change nothing.
	empty, emptyW := virtiotest.Buf{Addr: outside}, virtiotest.Buf{Addr: outside, Write: true}
	s := status()
	rq := request{status: s.Addr}
	rq.head = r.q.Add(empty, head(typeIn), empty, emptyW, virtiotest.Buf{Addr: mem.Alloc(512, 16), Len: 512, Write: true}, emptyW, s, emptyW)
	r.complete(r.issued(), 512, 0)
	r.used("empty buffers", rq, statusOK, 513)
}

// A request that can't even be answered ends in NEEDS_RESET.
func TestNoStatusByte(t *testing.T) {
	for name, bufs := range map[string]func(r *rig) []virtiotest.Buf{
		"no writable byte": func(r *rig) []virtiotest.Buf {
			return []virtiotest.Buf{{Addr: r.mem.Put(headerBytes(typeFlush, 0)), Len: headerSize}}
		},
		"read-only status": func(r *rig) []virtiotest.Buf {
			return []virtiotest.Buf{{Addr: r.mem.Put(headerBytes(typeFlush, 0)), Len: headerSize}, {Addr: r.mem.Put([]byte{noStatus}), Len: 1}}
		},
		"status of length 0": func(r *rig) []virtiotest.Buf {
			return []virtiotest.Buf{{Addr: r.mem.Put(headerBytes(typeFlush, 0)), Len: headerSize}, {Addr: r.mem.Put([]byte{noStatus}), Write: true}}
		},
		"status outside RAM": func(r *rig) []virtiotest.Buf {
			return []virtiotest.Buf{{Addr: r.mem.Put(headerBytes(typeFlush, 0)), Len: headerSize}, {Addr: 1 << 31, Len: 1, Write: true}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, testImage(), 0)
			r.q.Add(bufs(r)...)
			if p := r.dq.Pop(&r.req, true); p != aio.Empty {
				t.Errorf("Pop says %d, want Empty", p)
			}
			r.dq.Publish()
			if r.d.Status()&virtio.StatusNeedsReset == 0 || r.q.UsedIdx() != 0 || r.dq.EnableKicks() {
				t.Error("device does not need a reset")
			}
			if _, err := r.d.F.(*virtio.PCI).Save(); err != nil {
				t.Errorf("it can't migrate any more: %v", err)
			}
		})
	}
}

// 5.2.6.2: a read-only disk offers RO, fails every write, and writes nothing.
func TestReadOnly(t *testing.T) {
	img := testImage()
	img.readOnly = true
	r := newRig(t, img, 0)
	f := r.d.DeviceFeatures()
	if f&featReadOnly == 0 || f&(featDiscard|featWriteZeroes|featConfigWCE) != 0 || f&featFlush == 0 {
		t.Errorf("features %#x", f)
	}
	r.answered("write", r.send(typeOut, 0, make([]byte, 512), 0), statusIOErr, 1)
	r.answered("discard", r.send(typeDiscard, 0, extentBytes(0, 8, 0), 0), statusIOErr, 1)
	r.answered("zeroes", r.send(typeWriteZeroes, 0, extentBytes(0, 8, 0), 0), statusIOErr, 1)
	r.send(typeIn, 0, nil, 512)
	if r.issued().Op != aio.Read {
		t.Error("a read is no read")
	}
}

// DISCARD and WRITE_ZEROES only where they were negotiated.
func TestNotNegotiated(t *testing.T) {
	r := newRig(t, testImage(), featFlush)
	r.answered("discard", r.send(typeDiscard, 0, extentBytes(0, 8, 0), 0), statusUnsupp, 1)
	r.answered("zeroes", r.send(typeWriteZeroes, 0, extentBytes(0, 8, 0), 0), statusUnsupp, 1)
}

// A request without data is not longer than was announced, on a disk large enough for it.
func TestExtentLimits(t *testing.T) {
	img := testImage()
	img.size = 1 << 40
	r := newRig(t, img, 0)
	for typ, limit := range map[uint32]uint32{typeDiscard: maxDiscardSectors, typeWriteZeroes: maxWriteZeroesSectors} {
		r.answered("longer than the limit", r.send(typ, 0, extentBytes(0, limit+1, 0), 0), statusIOErr, 1)
		r.send(typ, 0, extentBytes(1<<30, limit, 0), 0)
		if q := r.issued(); q.Offset != 512<<30 || q.Length != int64(limit)*512 {
			t.Errorf("%+v", *q)
		}
	}
}

// A disk of 4096-byte blocks takes no half ones.
func TestBlockSize(t *testing.T) {
	img := testImage()
	img.blockSize = 4096
	r := newRig(t, img, 0)
	r.answered("misaligned sector", r.send(typeIn, 1, nil, 4096), statusIOErr, 0)
	r.answered("half a block", r.send(typeOut, 8, make([]byte, 512), 0), statusIOErr, 1)
	r.answered("half a block discarded", r.send(typeDiscard, 0, extentBytes(8, 4, 0), 0), statusIOErr, 1)
	r.send(typeIn, 8, nil, 4096)
	if q := r.issued(); q.Offset != 4096 || q.Length != 4096 {
		t.Errorf("%+v", q)
	}
}

// How a request ends: errno to status, and used length to what was really written.
func TestComplete(t *testing.T) {
	r := newRig(t, testImage(), 0)
	for _, c := range []struct {
		name   string
		typ    uint32
		n      int64
		err    unix.Errno
		status byte
		used   uint32
	}{
		{"read", typeIn, 1024, 0, statusOK, 1025},
		{"read error", typeIn, 0, unix.EIO, statusIOErr, 0},
		{"read error half way", typeIn, 512, unix.EIO, statusIOErr, 512},
		{"short read", typeIn, 512, 0, statusIOErr, 512},
		{"nothing read", typeIn, 0, 0, statusIOErr, 0},
		{"read error at the end", typeIn, 1024, unix.EIO, statusIOErr, 1025},
		{"read not supported", typeIn, 0, unix.EOPNOTSUPP, statusIOErr, 0},
		{"write", typeOut, 1024, 0, statusOK, 1},
		{"no space", typeOut, 0, unix.ENOSPC, statusIOErr, 1},
		{"short write", typeOut, 512, 0, statusIOErr, 1},
		{"flush", typeFlush, 0, 0, statusOK, 1},
		{"flush error", typeFlush, 0, unix.EIO, statusIOErr, 1},
		{"discard", typeDiscard, 0, 0, statusOK, 1},
		{"discard error", typeDiscard, 0, unix.EIO, statusIOErr, 1},
		{"discard not supported", typeDiscard, 0, unix.EOPNOTSUPP, statusUnsupp, 1},
		{"zeroes not supported", typeWriteZeroes, 0, unix.EOPNOTSUPP, statusUnsupp, 1},
	} {
		var payload []byte
		room := 0
		switch c.typ {
		case typeIn:
			room = 1024
		case typeOut:
			payload = make([]byte, 1024)
		case typeDiscard, typeWriteZeroes:
			payload = extentBytes(0, 8, 0)
		}
		rq := r.send(c.typ, 0, payload, room)
		q := r.issued()
		if r.statusOf(rq) != noStatus {
			t.Errorf("%s: status written before completion", c.name)
		}
		r.complete(q, c.n, c.err)
		if _, _, ok := r.q.Take(); ok {
			t.Errorf("%s: used before Publish", c.name)
		}
		r.used(c.name, rq, c.status, c.used)
	}
}

// The engine must complete what it was given, once.
func TestCompleteTwicePanics(t *testing.T) {
	r := newRig(t, testImage(), 0)
	r.send(typeFlush, 0, nil, 0)
	q := r.issued()
	r.complete(q, 0, 0)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	r.complete(q, 0, 0)
}

// A long operation stays in the queue while the engine takes none, and nothing of it is
// touched; a read is taken all the same.
func TestLongOperationStays(t *testing.T) {
	r := newRig(t, testImage(), 0)
	read := r.send(typeIn, 0, nil, 512)
	flush := r.send(typeFlush, 0, nil, 0)
	if p := r.dq.Pop(&r.req, false); p != aio.Issue || r.req.Op != aio.Read {
		t.Fatalf("Pop says %d, %v; want a read", p, r.req.Op)
	}
	r.complete(&r.req, 512, 0)
	r.used("read", read, statusOK, 513)
	for range 2 {
		if p := r.dq.Pop(&r.req, false); p != aio.Stays || !r.dq.Pending() || r.statusOf(flush) != noStatus {
			t.Fatalf("Pop says %d, status %#x; want Stays", p, r.statusOf(flush))
		}
	}
	r.complete(r.issued(), 0, 0)
	r.used("flush", flush, statusOK, 1)
}

// CVE-2026-45782: a head in flight comes again: NEEDS_RESET; the first request ends as it should.
func TestDuplicateHead(t *testing.T) {
	r := newRig(t, testImage(), 0)
	rq := r.send(typeIn, 0, nil, 512)
	q := r.issued()
	r.q.Push(rq.head)
	var second aio.Request
	if p := r.dq.Pop(&second, true); p != aio.Empty {
		t.Errorf("Pop says %d, want Empty", p)
	}
	if r.d.Status()&virtio.StatusNeedsReset == 0 {
		t.Error("device does not need a reset")
	}
	r.complete(q, 512, 0)
	r.used("first", rq, statusOK, 513)
}

func TestRequestPathAllocates(t *testing.T) {
	for _, indirect := range []bool{false, true} {
		r := newRig(t, testImage(), 0)
		b := []virtiotest.Buf{
			{Addr: r.mem.Put(headerBytes(typeIn, 0)), Len: headerSize},
			{Addr: r.mem.Alloc(512, 512), Len: 512, Write: true},
			{Addr: r.mem.Alloc(512, 512), Len: 512, Write: true},
			{Addr: r.mem.Alloc(1, 1), Len: 1, Write: true},
		}
		head := r.q.Chain(b...)
		if indirect {
			head = r.q.ChainIndirect(nil, b...)
		}
		r.req.Segments = make([]unix.Iovec, 0, 16)
		n := testing.AllocsPerRun(1000, func() {
			r.q.Push(head)
			r.dq.DisableKicks()
			if r.dq.Pop(&r.req, true) != aio.Issue {
				t.Fatal("not issued")
			}
			r.dq.Complete(&r.req, 1024, 0)
			r.dq.Publish()
			r.dq.EnableKicks()
		})
		if n != 0 {
			t.Errorf("%v allocations per request", n)
		}
	}
}
