package blk

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/guestlog"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// rig is a disk whose engine is the test: requests are popped and completed one
// by one, on an image that exists only as a size.
type rig struct {
	testing.TB
	dev  *Device
	mem  *virtiotest.Memory
	host *virtiotest.Host
	d    *virtiotest.Driver
	q    *virtiotest.Queue // the driver's side of queue 0
	dq   *queue            // the device's side
	req  aio.Request
}

// selfDriven is a Device without an engine.
type selfDriven struct {
	*Device
	rig *rig
}

func (s selfDriven) Activate(_ uint64, vqs []*virtio.Queue) error {
	s.rig.dq = newQueue(s.Device, vqs[0])
	return nil
}

const testSectors = 2048 // 1 MiB

func testImage() *Image {
	return &Image{
		path: "/images/test.img", fd: -1, size: testSectors * sectorSize,
		blockSize: 512, physicalSize: 4096, memAlign: 1, discard: true, zeroes: true,
	}
}

func newRig(t testing.TB, img *Image, features uint64) *rig {
	t.Helper()
	return newRigIn(t, virtiotest.NewMemory(t), img, features)
}

func newRigIn(t testing.TB, mem *virtiotest.Memory, img *Image, features uint64) *rig {
	t.Helper()
	r := &rig{TB: t, mem: mem, host: virtiotest.NewHost(t)}
	r.dev = &Device{id: "vda", image: img, queueCount: 1, queueSize: 16, log: guestlog.New(nil)}
	copy(r.dev.serial[:], "ebb-serial-0123456789")
	r.dev.capacity.Store(uint64(img.size) / sectorSize)
	r.dev.clear()
	r.start(features)
	return r
}

func (r *rig) start(features uint64) {
	r.Helper()
	p, err := virtio.NewPCI(selfDriven{r.dev, r}, r.mem, r.host, nil)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { p.Close() }) //nolint:errcheck // checked in package virtio
	r.d = virtiotest.Probe(r, r.mem, r.host, p)
	if features != 0 {
		features |= virtio.FeatureVersion1 | virtio.FeatureIndirectDesc
	}
	r.d.Start(virtiotest.Setup{Features: features})
	r.q = r.d.Queues[0]
}

// request is a request of the driver's, in guest memory.
type request struct {
	head   uint16
	status uint64 // guest address
	data   uint64
	n      int
}

const noStatus = 0xff // what the driver puts into the status byte

func headerBytes(typ uint32, sector uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, typ)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint64(b, sector)
}

func extentBytes(sector uint64, sectors, flags uint32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, sector)
	b = binary.LittleEndian.AppendUint32(b, sectors)
	return binary.LittleEndian.AppendUint32(b, flags)
}

// send makes a request available: a header, payload for the device to read, room
// for n bytes it writes, and a status byte, in a buffer each.
func (r *rig) send(typ uint32, sector uint64, payload []byte, room int) request {
	return sendOn(r.mem, r.q, typ, sector, payload, room)
}

func sendOn(mem *virtiotest.Memory, q *virtiotest.Queue, typ uint32, sector uint64, payload []byte, room int) request {
	bufs := []virtiotest.Buf{{Addr: mem.Put(headerBytes(typ, sector)), Len: headerSize}}
	rq := request{n: room}
	if payload != nil {
		bufs = append(bufs, virtiotest.Buf{Addr: mem.Put(payload), Len: uint32(len(payload))})
	}
	if room > 0 {
		rq.data = mem.Put(bytes.Repeat([]byte{0xaa}, room))
		bufs = append(bufs, virtiotest.Buf{Addr: rq.data, Len: uint32(room), Write: true})
	}
	rq.status = mem.Put([]byte{noStatus})
	bufs = append(bufs, virtiotest.Buf{Addr: rq.status, Len: 1, Write: true})
	rq.head = q.Add(bufs...)
	return rq
}

func (r *rig) statusOf(rq request) byte { return r.mem.RAM(rq.status, 1)[0] }

func (r *rig) dataOf(rq request) []byte { return r.mem.RAM(rq.data, uint64(rq.n)) }

// issued pops a request that has to reach the engine.
func (r *rig) issued() *aio.Request {
	r.Helper()
	if p := r.dq.Pop(&r.req, true); p != aio.Issue {
		r.Fatalf("Pop says %d, want Issue", p)
	}
	return &r.req
}

// used takes a request off the used ring and checks its fate.
func (r *rig) used(what string, rq request, status byte, n uint32) {
	r.Helper()
	r.dq.Publish()
	head, got, ok := r.q.Take()
	if !ok || head != rq.head || got != n || r.statusOf(rq) != status {
		r.Errorf("%s: used %v, head %d, length %d, status %#x; want head %d, length %d, status %#x",
			what, ok, head, got, r.statusOf(rq), rq.head, n, status)
	}
}

// answered checks that the device answers a request without the engine.
func (r *rig) answered(what string, rq request, status byte, n uint32) {
	r.Helper()
	if p := r.dq.Pop(&r.req, true); p != aio.Done {
		r.Errorf("%s: Pop says %d, want Done", what, p)
		return
	}
	r.used(what, rq, status, n)
}

func (r *rig) complete(rq *aio.Request, n int64, err unix.Errno) { r.dq.Complete(rq, n, err) }
