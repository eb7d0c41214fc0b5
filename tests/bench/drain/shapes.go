package main

import (
	"fmt"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/moving"
	"github.com/ebb-vmm/ebb/tests/bench/nullblk"
)

const ms = time.Millisecond

// source is what one disk of a real VM is made of.
type source struct {
	drive     string        // of the lab's QEMU; else a null_blk device:
	latency   time.Duration // of every request, any number at once
	throttled bool          // by io.max, to slowIOPS
	delay     time.Duration // of dm-delay, above it
	flush     time.Duration // the same, for a flush; 0: as any other
	hangs     bool          // it can be made to
}

// The lab's drives.
const (
	smoothDrive = "smooth" // slowIOPS, one after the other
	latentDrive = "latent" // null-aio of latentTime
	slowIOPS    = 200
	latentTime  = 20 * ms
)

// drives are the lab's, in the order of their letters.
var drives = []string{smoothDrive, smoothDrive, smoothDrive, smoothDrive, latentDrive, latentDrive}

// real is a VM with disks that exist.
type real struct {
	name, about string
	simulated   string // the shape like it, if there is one
	depth       int    // requests outstanding on each disk
	tags        int    // requests that a null_blk device takes at once; 0: enough
	guest       string // more of its command line
	disks       []source
	late        bool // the first disk has nothing to do until EBB
	hang        hang // what becomes of the first one
}

// hang is when a disk that can hangs.
type hang int

const (
	never   hang = iota
	forGood      // from before the migration
	aWhile       // the same, for hangTime
)

const hangTime = 3 * time.Second

func times(n int, s source) (all []source) {
	for range n {
		all = append(all, s)
	}
	return all
}

var reals = []real{
	{name: "smooth 1", about: "QEMU's throttle: 200 IOPS, one every 5 ms; 1 request outstanding", simulated: "smooth 200, 1", depth: 1, disks: times(1, source{drive: smoothDrive})},
	{name: "smooth 64", about: "the same with 64 outstanding", simulated: "smooth 200, 64", depth: 64, disks: times(1, source{drive: smoothDrive})},
	{name: "smooth 120", about: "the same with 120 outstanding", simulated: "smooth 200, 120", depth: 120, disks: times(1, source{drive: smoothDrive})},
	{name: "sliced 64", about: "io.max of a cgroup: 200 IOPS in bursts", simulated: "sliced 200, 64", depth: 64, disks: times(1, source{latency: 100 * time.Microsecond, throttled: true})},
	{name: "null_blk 64", about: "null_blk: 20 ms each, any number at once", simulated: "parallel 20 ms, 64", depth: 64, disks: times(1, source{latency: 20 * ms})},
	{name: "null-aio 64", about: "QEMU's null-aio: 20 ms each, any number at once", simulated: "parallel 20 ms, 64", depth: 64, disks: times(1, source{drive: latentDrive})},
	{name: "dm-delay 64", about: "dm-delay: 20 ms each, any number at once", simulated: "parallel 20 ms, 64", depth: 64, disks: times(1, source{latency: 100 * time.Microsecond, delay: 20 * ms})},
	{name: "40 at once", about: "null_blk with 40 tags, 90 ms each; 120 outstanding: 40 fit and are needed", simulated: "40 at once, 120", depth: 120, tags: 40, disks: times(1, source{latency: 90 * ms})},
	{name: "flushes", about: "dm-delay: 20 ms each, every 3000th a flush of 250 ms; 64 outstanding", simulated: "flushes, rare", depth: 64, guest: "flush=3000", disks: times(1, source{latency: 100 * time.Microsecond, delay: 20 * ms, flush: 250 * ms})},
	{name: "late", about: "QEMU's throttle, 200 IOPS; the guest begins in EBB, with 64 outstanding", simulated: "idle, then busy", depth: 64, late: true, disks: times(1, source{drive: smoothDrive})},
	{name: "16 mixed", about: "16 disks, 64 outstanding on each: 4 × QEMU's throttle, 4 × io.max, 4 × null_blk of 80 ms, 2 × dm-delay of 80 ms, 2 × null-aio of 20 ms", simulated: "16 mixed", depth: 64,
		disks: mixed()},
	{name: "hangs, then not", about: fmt.Sprintf("4 disks of 50 ms; one, a suspended dm device, answers nothing for %v", hangTime), simulated: "hangs for 2 s", depth: 64, hang: aWhile, disks: fourOneHangs()},
	{name: "hangs for good", about: "the same, until after --timeout", simulated: "hangs for good", depth: 64, hang: forGood, disks: fourOneHangs()},
}

func mixed() (all []source) {
	for range 2 {
		all = append(all, times(2, source{drive: smoothDrive})...)
		all = append(all, times(2, source{latency: 100 * time.Microsecond, throttled: true})...)
		all = append(all, times(2, source{latency: 80 * ms})...)
		all = append(all, source{latency: 100 * time.Microsecond, delay: 80 * ms}, source{drive: latentDrive})
	}
	return all
}

func fourOneHangs() []source {
	return append([]source{{latency: 50 * ms, hangs: true}}, times(3, source{latency: 50 * ms})...)
}

// companion is a disk that can't be drained within any budget of this benchmark: beside it EBB lasts until --timeout.
var companion = source{latency: 400 * ms}

// devices are a VM's disks.
type devices struct {
	paths  []string
	null   nullblk.Devices
	mapped []*nullblk.Mapped
	cgroup moving.Cgroup
	hangs  *nullblk.Mapped // nil: none can
}

// makeDevices makes those of a VM with depth requests outstanding on each; tags as in real.
func makeDevices(depth, tags int, sources []source) (d *devices, err error) {
	d = &devices{}
	defer func() {
		if err != nil {
			d.remove()
		}
	}()
	var latencies []time.Duration
	for _, s := range sources {
		if s.drive == "" {
			latencies = append(latencies, s.latency)
		}
	}
	if tags > 0 {
		d.null, err = nullblk.MakeShort(tags, latencies...)
	} else {
		d.null, err = nullblk.Make(depth, latencies...)
	}
	if err != nil {
		return nil, err
	}
	lower, taken := d.null.Paths(), map[int]bool{}
	var throttled []string
	for _, s := range sources {
		path := ""
		switch {
		case s.drive != "":
			for i, kind := range drives {
				if path == "" && kind == s.drive && !taken[i] {
					path, taken[i] = fmt.Sprintf("/dev/vd%c", 'a'+i), true
				}
			}
		default:
			path, lower = lower[0], lower[1:]
		}
		if s.throttled {
			throttled = append(throttled, path)
		}
		if s.hangs || s.delay > 0 {
			m, err := (*nullblk.Mapped)(nil), error(nil)
			if s.hangs {
				m, err = nullblk.MakeHanging(path, nullblk.DeviceMiB)
				d.hangs = m
			} else {
				m, err = nullblk.MakeDelayed(path, nullblk.DeviceMiB, s.delay, max(s.delay, s.flush))
			}
			if err != nil {
				return nil, err
			}
			d.mapped = append(d.mapped, m)
			path = m.Path
		}
		d.paths = append(d.paths, path)
	}
	if len(throttled) > 0 {
		d.cgroup, err = moving.Throttle(slowIOPS, throttled...)
	}
	return d, err
}

func (d *devices) remove() {
	for _, m := range d.mapped {
		_ = m.Remove()
	}
	d.cgroup.Remove()
	d.null.Remove()
}
