package main

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// pollingGuest is a thread that does what guest/diskbench does in a VM: it reads from all its disks at random, and asks
// for the next as soon as one is answered.
type pollingGuest struct {
	mem    *virtiotest.Memory
	shared int // a memfd that holds mem
	disks  []*polledDisk
	blocks uint64 // of each disk
	random uint64
	errors int
	over   atomic.Bool
}

const guestRAM = 64 << 20

// newPollingGuest has memory that another process can map, whoever carries out the requests: it is slower than what a machine has.
func newPollingGuest(b *testing.B, s setup) *pollingGuest {
	g := &pollingGuest{mem: virtiotest.NewMemory(b, virtiotest.Range{Size: guestRAM}), blocks: uint64(imageSize(s.Disks) / requestSize), random: 88172645463325252}
	var err error
	g.shared, err = share(g.mem.Bytes(0, guestRAM))
	must(b, err)
	b.Cleanup(func() { unix.Close(g.shared) })
	return g
}

// virtqueue is where a disk's rings are in guest memory, with queueSize descriptors.
type virtqueue struct {
	desc, avail, used uint64
	kick              func()
}

// polledDisk has a request in each three descriptors: header, data, status.
type polledDisk struct {
	avail, used       []byte
	kick              func()
	headers, status   [][]byte // by request
	availIdx, usedIdx uint16
	completed         atomic.Int64
}

func (g *pollingGuest) add(q virtqueue, depth int) {
	d := &polledDisk{avail: g.mem.RAM(q.avail, 8+2*queueSize), used: g.mem.RAM(q.used, 8+8*queueSize), kick: q.kick}
	for i := range depth {
		const header, status = 16, 1
		at, data := g.mem.Alloc(header+status, 32), g.mem.Alloc(requestSize, requestSize)
		d.headers = append(d.headers, g.mem.RAM(at, header))
		d.status = append(d.status, g.mem.RAM(at+header, status))
		first := uint16(3 * i)
		desc := g.mem.RAM(q.desc+16*uint64(first), 3*16)
		virtiotest.PutDesc(desc, at, header, virtiotest.Next, first+1)
		virtiotest.PutDesc(desc[16:], data, requestSize, virtiotest.Next|virtiotest.Write, first+2)
		virtiotest.PutDesc(desc[32:], at+header, status, virtiotest.Write, 0)
	}
	g.disks = append(g.disks, d)
}

// measure runs the guest, for a second after the warm-up.
func (g *pollingGuest) measure(b *testing.B) (r result) {
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		g.run()
	}()
	time.Sleep(warmUp)
	before, begin := make([]int64, len(g.disks)), time.Now()
	for i, d := range g.disks {
		before[i] = d.completed.Load()
	}
	time.Sleep(time.Second)
	var slowest, fastest int64
	for i, d := range g.disks {
		n := d.completed.Load() - before[i]
		r.IOPS += float64(n)
		if i == 0 || n < slowest {
			slowest = n
		}
		fastest = max(fastest, n)
	}
	r.IOPS /= time.Since(begin).Seconds()
	r.Fairness = float64(slowest) / float64(max(fastest, 1))
	g.over.Store(true)
	<-ended
	if g.errors > 0 {
		b.Fatalf("%d reads failed", g.errors)
	}
	return r
}

func (g *pollingGuest) run() {
	for _, d := range g.disks {
		for i := range d.headers {
			g.send(d, i)
		}
		d.publish(0)
	}
	for !g.over.Load() {
		for _, d := range g.disks {
			if n := g.answers(d); n > 0 {
				d.completed.Add(n)
			}
		}
	}
}

// answers takes what has been used and sends as many requests anew.
func (g *pollingGuest) answers(d *polledDisk) (n int64) {
	idx, before := loadHigh(d.used), d.availIdx
	for ; d.usedIdx != idx; d.usedIdx++ {
		at := 4 + 8*(int(d.usedIdx)%queueSize)
		i := int(binary.LittleEndian.Uint32(d.used[at:])) / 3
		if d.status[i][0] != 0 {
			g.errors++
		}
		g.send(d, i)
		n++
	}
	if n > 0 {
		d.publish(before)
	}
	return n
}

func (g *pollingGuest) send(d *polledDisk, i int) {
	const sectors = requestSize / 512
	g.random ^= g.random << 13
	g.random ^= g.random >> 7
	g.random ^= g.random << 17
	binary.LittleEndian.PutUint64(d.headers[i][8:], g.random%g.blocks*sectors)
	d.status[i][0] = 0xff
	at := 4 + 2*(int(d.availIdx)%queueSize)
	binary.LittleEndian.PutUint16(d.avail[at:], uint16(3*i))
	d.availIdx++
}

// publish shows what was sent since avail idx was before, and kicks if that is wanted (2.7.10).
func (d *polledDisk) publish(before uint16) {
	storeHigh(d.avail, d.availIdx)
	event := binary.LittleEndian.Uint16(d.used[4+8*queueSize:])
	if d.availIdx-event-1 < d.availIdx-before {
		d.kick()
	}
}
