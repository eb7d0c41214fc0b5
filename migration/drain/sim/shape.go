package sim

import (
	"math/rand/v2"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
)

const ms = time.Millisecond

// Shape is a VM: disks and guests that differ with the seed in phases and jitter only.
type Shape struct {
	Name  string
	About string // one line
	Can   bool   // it can always be drained within 150 ms
	disks func(rng *rand.Rand) []*disk
}

func one(d device, g guest) []*disk { return []*disk{{guest: g, device: d}} }

// besideSlow has the VM kept in EBB by a second disk, whose requests take longer than any drain may.
func besideSlow(rng *rand.Rand, d device, g guest) []*disk {
	return []*disk{{guest: g, device: d}, {guest: guest{depth: 1}, device: endless(near(rng, 400*ms, 0.05))}}
}

func smooth(rng *rand.Rand, iops float64) *servers {
	return newServers(1, near(rng, time.Duration(float64(time.Second)/iops), 0.05))
}

// sliced gives iops in slices of 100 ms.
func sliced(rng *rand.Rand, iops int) device {
	return &bucket{slice: 100 * ms, tokens: iops / 10, service: 300 * time.Microsecond, phase: time.Duration(rng.Int64N(int64(100 * ms)))}
}

// flushEvery makes every n-th request a flush.
func flushEvery(n int) func(*rand.Rand, int) (int, bool) {
	return func(_ *rand.Rand, i int) (int, bool) { return 4096, i%n == n-1 }
}

func smallAndLarge(rng *rand.Rand, _ int) (int, bool) {
	if rng.IntN(2) == 0 {
		return 1 << 20, false
	}
	return 4096, false
}

// Shapes are all there are, made for a budget of 150 ms.
var Shapes = []Shape{
	{"smooth 200, 1", "200 IOPS, one every 5 ms; 1 request outstanding", true, func(rng *rand.Rand) []*disk {
		return one(smooth(rng, 200), guest{depth: 1})
	}},
	{"smooth 200, 64", "the same with 64 outstanding: a drain takes 320 ms", true, func(rng *rand.Rand) []*disk {
		return one(smooth(rng, 200), guest{depth: 64})
	}},
	{"smooth 200, 120", "the same with 120 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(smooth(rng, 200), guest{depth: 120})
	}},
	{"smooth 20, 64", "20 IOPS: 3 s for what is outstanding, and 2 requests fit", true, func(rng *rand.Rand) []*disk {
		return one(smooth(rng, 20), guest{depth: 64})
	}},
	{"sliced 200, 1", "200 IOPS in slices of 100 ms: 20 requests at once, then none", true, func(rng *rand.Rand) []*disk {
		return one(sliced(rng, 200), guest{depth: 1})
	}},
	{"sliced 200, 64", "the same with 64 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(sliced(rng, 200), guest{depth: 64})
	}},
	{"parallel 20 ms, 64", "20 ms each, any number at once", true, func(rng *rand.Rand) []*disk {
		return one(endless(near(rng, 20*ms, 0.1)), guest{depth: 64})
	}},
	{"8 at once, 120", "8 at once, 20 ms each; 120 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(newServers(8, near(rng, 20*ms, 0.3)), guest{depth: 120})
	}},
	{"40 at once, 120", "40 at once, 90 ms each; 120 outstanding: 40 fit and are needed", true, func(rng *rand.Rand) []*disk {
		return one(newServers(40, near(rng, 90*ms, 0.1)), guest{depth: 120})
	}},
	{"40 at once, unfair", "the same, but who waits may wait for long, as others overtake", true, func(rng *rand.Rand) []*disk {
		return one(&unfair{servers: newServers(40, near(rng, 90*ms, 0.1)), rng: rng}, guest{depth: 120})
	}},
	{"40 at once, kept", "the same, but one that has been idle begins 5 ms later; beside a disk that can't be drained", false, func(rng *rand.Rand) []*disk {
		d := newServers(40, near(rng, 90*ms, 0.02))
		d.wakes = 5 * ms
		return besideSlow(rng, &unfair{servers: d, rng: rng}, guest{depth: 120})
	}},
	{"late host, kept", "80 ms each, any number at once, but once in 3 s nothing completes for 0.15 s; beside a disk that can't be drained", false, func(rng *rand.Rand) []*disk {
		return besideSlow(rng, late{endless(near(rng, 80*ms, 0.02)), 3 * time.Second, 150 * ms}, guest{depth: 64})
	}},
	{"flushes, serial", "1 ms each, every 100th a flush of 50 to 300 ms, one at a time; 64 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(newServers(1, flushes(rng, 50*ms, 300*ms, near(rng, ms, 0.3))), guest{depth: 64, next: flushEvery(100)})
	}},
	{"flushes, parallel", "1 ms each, every 100th a flush of 50 to 300 ms, at once; 4 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(endless(flushes(rng, 50*ms, 300*ms, near(rng, ms, 0.3))), guest{depth: 4, next: flushEvery(100)})
	}},
	{"flushes, deep", "5 ms each, every 2000th a flush of 50 to 300 ms, at once; 64 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(endless(flushes(rng, 50*ms, 300*ms, near(rng, 5*ms, 0.3))), guest{depth: 64, next: flushEvery(2000)})
	}},
	{"flushes, rare", "20 ms each, every 3000th a flush of 250 ms, at once; 64 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(endless(flushes(rng, 245*ms, 255*ms, near(rng, 20*ms, 0.05))), guest{depth: 64, next: flushEvery(3000)})
	}},
	{"commits beside a slow disk", "a write of 20 ms and a flush of 180 to 220 ms, again and again; 100 ms each on the other disk, 8 outstanding", true, func(rng *rand.Rand) []*disk {
		return []*disk{
			{device: endless(near(rng, 100*ms, 0.05)), guest: guest{depth: 8}},
			{device: endless(flushes(rng, 180*ms, 220*ms, near(rng, 20*ms, 0.05))), guest: guest{depth: 1, next: flushEvery(2)}}}
	}},
	{"4 KiB and 1 MiB", "both as often, at 50 MB/s; 64 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(newServers(1, bandwidth(50e6)), guest{depth: 64, next: smallAndLarge})
	}},
	{"4 on one backing", "4 disks share 800 IOPS; 32 outstanding each", true, func(rng *rand.Rand) []*disk {
		shared := smooth(rng, 800)
		var all []*disk
		for range 4 {
			all = append(all, &disk{device: shared, guest: guest{depth: 32}})
		}
		return all
	}},
	{"idle, then busy", "200 IOPS; the guest begins 0 to 3 s after EBB, with 64 outstanding", true, func(rng *rand.Rand) []*disk {
		return one(smooth(rng, 200), guest{depth: 64, from: warm + time.Duration(rng.Int64N(int64(3*time.Second)))})
	}},
	{"bursts", "200 IOPS; the guest has 40 outstanding for 0.3 s, then pauses 0.4 s", true, func(rng *rand.Rand) []*disk {
		return one(smooth(rng, 200), guest{depth: 40, on: 300 * ms, off: 400 * ms, from: time.Duration(rng.Int64N(int64(700 * ms)))})
	}},
	{"16 mixed", "4 × smooth, 4 × sliced, 4 × parallel, 4 × idle", true, func(rng *rand.Rand) []*disk {
		var all []*disk
		for range 4 {
			all = append(all,
				&disk{device: smooth(rng, 200), guest: guest{depth: 64}},
				&disk{device: sliced(rng, 200), guest: guest{depth: 64}},
				&disk{device: endless(near(rng, 20*ms, 0.1)), guest: guest{depth: 32}},
				&disk{device: smooth(rng, 200)})
		}
		return all
	}},
	{"freezes", "200 IOPS, but for 0.4 s in every 2 s nothing completes; 64 outstanding", false, func(rng *rand.Rand) []*disk {
		return one(&freezing{*smooth(rng, 200), 2 * time.Second, 400 * ms, time.Duration(rng.Int64N(int64(2 * time.Second)))}, guest{depth: 64})
	}},
	{"hangs for 2 s", "two disks of 200 IOPS; one answers nothing from 1 to 3 s after EBB", true, func(rng *rand.Rand) []*disk {
		return []*disk{
			{device: hanging{smooth(rng, 200), warm + time.Second, warm + 3*time.Second}, guest: guest{depth: 64}},
			{device: smooth(rng, 200), guest: guest{depth: 64}}}
	}},
	{"hangs for good", "two disks of 200 IOPS; one answers nothing from 1 s after EBB on", false, func(rng *rand.Rand) []*disk {
		return []*disk{
			{device: hanging{smooth(rng, 200), warm + time.Second, never}, guest: guest{depth: 64}},
			{device: smooth(rng, 200), guest: guest{depth: 64}}}
	}},
	{"parallel 200 ms, 64", "200 ms each, any number at once: nothing helps", false, func(rng *rand.Rand) []*disk {
		return one(endless(near(rng, 200*ms, 0.05)), guest{depth: 64})
	}},
	{"smooth 5, 64", "200 ms each, one at a time: nothing helps", false, func(rng *rand.Rand) []*disk {
		return one(smooth(rng, 5), guest{depth: 64})
	}},
}

// ByName finds a shape; nil: there is none.
func ByName(name string) *Shape {
	for i := range Shapes {
		if Shapes[i].Name == name {
			return &Shapes[i]
		}
	}
	return nil
}

// vm makes the shape's VM for a seed.
func (s *Shape) vm(seed uint64) *vm {
	rng := rand.New(rand.NewPCG(seed, 1))
	v := &vm{disks: s.disks(rng)}
	for i, d := range v.disks {
		d.rng, d.window = rand.New(rand.NewPCG(seed, uint64(i+2))), drain.Unlimited
	}
	return v
}
