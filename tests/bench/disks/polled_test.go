package main

import (
	"context"
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/tests/bench/stat"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// BenchmarkPolled measures what guest/diskbench does where there is no KVM: a thread that polls all disks takes the place of
// the guest and its vCPU; rings, devices, engine and files are what they are in a VM. It reports medians: thousands of
// requests per second with 1 and with 16 disks of 64 requests, of 16 to one, and of each to the bare loop, measured in turn.
//
//	go test ./tests/bench/disks -run - -bench Polled -benchtime 7x
func BenchmarkPolled(b *testing.B) {
	one, many := setup{onTmpfs, 1, 64}, setup{onTmpfs, 16, 64}
	images := map[int][]string{}
	for _, s := range []setup{one, many} {
		dir, err := os.MkdirTemp("/dev/shm", "bench-polled-")
		must(b, err)
		b.Cleanup(func() { os.RemoveAll(dir) })
		images[s.Disks], err = makeImages(dir, s.Disks)
		must(b, err)
	}
	for _, kind := range []aio.EngineKind{aio.EngineUring, aio.EngineNative, aio.EngineThreads} {
		b.Run(kind.String(), func(b *testing.B) {
			var r record
			for round := range b.N {
				for _, s := range []setup{one, many} {
					r.Samples = append(r.Samples, sample{round, "ebb", s, polled(b, kind, s, images[s.Disks])})
					got, err := bare(s, images[s.Disks], time.Second)
					must(b, err)
					r.Samples = append(r.Samples, sample{round, bareName, s, got})
				}
			}
			report := func(name string, s stat.Stat) { b.ReportMetric(s.Median, name) }
			report("one", r.stat("ebb", one, kiops))
			report("16", r.stat("ebb", many, kiops))
			report("16/one", r.ratio("ebb", many, "ebb", one))
			report("one/bare", r.ratio("ebb", one, bareName, one))
			report("16/bare", r.ratio("ebb", many, bareName, many))
		})
	}
}

func kiops(r result) float64 { return r.IOPS / 1e3 }

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// polled measures for a second, after the warm-up.
func polled(b *testing.B, kind aio.EngineKind, s setup, images []string) result {
	// As a machine with one vCPU does it; a thread for the guest, one for us.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4+kind.Processors())))
	e, err := aio.New(aio.Config{Engine: kind})
	must(b, err)
	const ram = 64 << 20
	mem := unwatched{virtiotest.NewMemory(b, virtiotest.Range{Size: ram})}
	_ = unix.Madvise(mem.Bytes(0, ram), unix.MADV_HUGEPAGE) // as a machine's
	g := pollingGuest{blocks: uint64(imageSize(s.Disks) / requestSize), random: 88172645463325252}
	var ends []func()
	for i, path := range images {
		img, err := blk.OpenImage(path, blk.ImageOptions{Direct: true})
		must(b, err)
		dev, err := blk.New(blk.Config{ID: "disk" + strconv.Itoa(i), Image: img, Engine: e})
		must(b, err)
		host := virtiotest.NewHost(b)
		p, err := virtio.NewPCI(dev, mem, host, nil)
		must(b, err)
		d := virtiotest.Probe(b, mem.Memory, host, p)
		d.Start(virtiotest.Setup{Features: virtio.FeatureVersion1 | virtio.FeatureEventIdx})
		g.disks = append(g.disks, newPolledDisk(mem.Memory, d.Queues[0], s.Depth))
		ends = append(ends, func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			must(b, dev.Pause(ctx))
			d.Reset()
			must(b, p.Close())
			must(b, img.Close())
		})
	}
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		g.run()
	}()
	time.Sleep(warmUp)
	n, begin := g.completed.Load(), time.Now()
	time.Sleep(time.Second)
	rate := float64(g.completed.Load()-n) / time.Since(begin).Seconds()
	g.over.Store(true)
	<-ended
	for _, end := range ends {
		end()
	}
	must(b, e.Close())
	if g.errors > 0 {
		b.Fatalf("%d reads failed", g.errors)
	}
	return result{IOPS: rate}
}

// unwatched is memory of which nobody asks what was written, as that of a guest that doesn't migrate.
type unwatched struct{ *virtiotest.Memory }

func (unwatched) Wrote(*byte, uint64) {}

// pollingGuest reads from all its disks at random, and asks for the next as soon as one is answered.
type pollingGuest struct {
	disks     []*polledDisk
	blocks    uint64 // of each disk
	random    uint64
	errors    int
	completed atomic.Int64
	over      atomic.Bool
}

// polledDisk has a request in each three descriptors: header, data, status.
type polledDisk struct {
	queue             *virtiotest.Queue
	avail, used       []byte
	headers, status   [][]byte // by request
	availIdx, usedIdx uint16
}

func newPolledDisk(mem *virtiotest.Memory, q *virtiotest.Queue, depth int) *polledDisk {
	size := uint64(q.Size)
	d := &polledDisk{queue: q, avail: mem.RAM(q.Avail, 8+2*size), used: mem.RAM(q.UsedAddr, 8+8*size)}
	for i := range depth {
		const header, status = 16, 1
		at, data := mem.Alloc(header+status, 32), mem.Alloc(requestSize, requestSize)
		d.headers = append(d.headers, mem.RAM(at, header))
		d.status = append(d.status, mem.RAM(at+header, status))
		first := uint16(3 * i)
		q.SetDesc(first, at, header, virtiotest.Next, first+1)
		q.SetDesc(first+1, data, requestSize, virtiotest.Next|virtiotest.Write, first+2)
		q.SetDesc(first+2, at+header, status, virtiotest.Write, 0)
	}
	return d
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
				g.completed.Add(n)
			}
		}
	}
}

// answers takes what has been used and sends as many requests anew.
func (g *pollingGuest) answers(d *polledDisk) (n int64) {
	idx, before := loadHigh(d.used), d.availIdx
	for ; d.usedIdx != idx; d.usedIdx++ {
		at := 4 + 8*(int(d.usedIdx)%d.queue.Size)
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
	at := 4 + 2*(int(d.availIdx)%d.queue.Size)
	binary.LittleEndian.PutUint16(d.avail[at:], uint16(3*i))
	d.availIdx++
}

// publish shows what was sent since avail idx was before, and kicks if that is wanted (2.7.10).
func (d *polledDisk) publish(before uint16) {
	storeHigh(d.avail, d.availIdx)
	event := binary.LittleEndian.Uint16(d.used[4+8*d.queue.Size:])
	if d.availIdx-event-1 < d.availIdx-before {
		d.queue.Kick()
	}
}
