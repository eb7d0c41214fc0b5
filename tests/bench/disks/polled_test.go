package main

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/tests/bench/stat"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// BenchmarkPolled compares the engines with QEMU's where there is no KVM: a thread that polls all disks takes the place of
// the guest and its vCPU. On ebb's side rings, devices, engine and files are what they are in a VM. QEMU's engines are those of
// qemu-storage-daemon, which has the rings in shared memory (vhost-user); it is left out where that is not installed. It reports medians:
// thousands of requests per second with 1 and with 16 disks, the ratios to QEMU and to the bare loop, measured in turn, and with 16
// disks that of the slowest disk to the fastest.
//
//	go test ./tests/bench/disks -run - -bench Polled -benchtime 7x
func BenchmarkPolled(b *testing.B) {
	dirs := map[string]string{onTmpfs: "/dev/shm", onFile: "."}
	images := map[setup][]string{}
	for _, place := range []string{onTmpfs, onFile} {
		for _, n := range []int{1, 16} {
			dir, err := os.MkdirTemp(dirs[place], "bench-polled-")
			must(b, err)
			b.Cleanup(func() { os.RemoveAll(dir) })
			images[setup{place, n, 0}], err = makeImages(dir, n)
			must(b, err)
		}
	}
	for _, kind := range []aio.EngineKind{aio.EngineUring, aio.EngineNative, aio.EngineThreads} {
		for _, place := range []string{onTmpfs, onFile} {
			for _, depth := range []int{1, 64} {
				b.Run(kind.String()+"/"+place+"/depth="+strconv.Itoa(depth), func(b *testing.B) {
					inTurn(b, kind, setup{place, 1, depth}, images[setup{place, 1, 0}], setup{place, 16, depth}, images[setup{place, 16, 0}])
				})
			}
		}
	}
}

func inTurn(b *testing.B, kind aio.EngineKind, one setup, disk []string, many setup, disks []string) {
	const ebb, qemu = "ebb", "QEMU"
	var r record
	for round := range b.N {
		for s, images := range map[setup][]string{one: disk, many: disks} {
			add := func(candidate string, got result) { r.Samples = append(r.Samples, sample{round, candidate, s, got}) }
			add(ebb, polled(b, kind, s, images))
			if installed() {
				add(qemu, polledDaemon(b, kind, s, images))
			}
			got, err := bare(s, images, time.Second)
			must(b, err)
			add(bareName, got)
		}
	}
	report := func(name string, s stat.Stat) {
		if s.N > 0 {
			b.ReportMetric(s.Median, name)
		}
	}
	report("one", r.stat(ebb, one, kiops))
	report("16", r.stat(ebb, many, kiops))
	report("16/one", r.ratio(ebb, many, ebb, one))
	report("one/bare", r.ratio(ebb, one, bareName, one))
	report("16/bare", r.ratio(ebb, many, bareName, many))
	report("one/QEMU", r.ratio(ebb, one, qemu, one))
	report("16/QEMU", r.ratio(ebb, many, qemu, many))
	report("fairness", r.stat(ebb, many, fairness))
	report("QEMU-fairness", r.stat(qemu, many, fairness))
}

func kiops(r result) float64 { return r.IOPS / 1e3 }

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// polled has ebb carry out the requests.
func polled(b *testing.B, kind aio.EngineKind, s setup, images []string) result {
	// As a machine with one vCPU does it; a thread for the guest, one for us.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4+aio.Processors)))
	e, err := aio.New(aio.Config{Engine: kind})
	must(b, err)
	g := newPollingGuest(b, s)
	var ends []func()
	for i, path := range images {
		img, err := blk.OpenImage(path, blk.ImageOptions{Direct: true})
		must(b, err)
		dev, err := blk.New(blk.Config{ID: "disk" + strconv.Itoa(i), Image: img, Engine: e})
		must(b, err)
		host := virtiotest.NewHost(b)
		p, err := virtio.NewPCI(dev, unwatched{g.mem}, host, nil)
		must(b, err)
		d := virtiotest.Probe(b, g.mem, host, p)
		d.Start(virtiotest.Setup{Features: virtio.FeatureVersion1 | virtio.FeatureEventIdx, QueueSize: queueSize})
		q := d.Queues[0]
		g.add(virtqueue{desc: q.Desc, avail: q.Avail, used: q.UsedAddr, kick: q.Kick}, s.Depth)
		ends = append(ends, func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			must(b, dev.Pause(ctx))
			d.Reset()
			must(b, p.Close())
			must(b, img.Close())
		})
	}
	got := g.measure(b)
	for _, end := range ends {
		end()
	}
	must(b, e.Close())
	return got
}

// unwatched is memory of which nobody asks what was written, as that of a guest that doesn't migrate.
type unwatched struct{ *virtiotest.Memory }

func (unwatched) Wrote(*byte, uint64) {}
