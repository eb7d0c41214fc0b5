package sim

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/migration/drain"
)

// maxLong is aio's bound on long operations in flight on a port.
const maxLong = 8

// request is one of a guest's.
type request struct {
	disk   *disk
	queued time.Duration // when the guest made it available
	done   time.Duration
	size   int
	long   bool
	epoch  int
}

// guest is what a VM does with one disk.
type guest struct {
	depth   int                                               // requests outstanding: the next follows at once
	from    time.Duration                                     // when it begins
	on, off time.Duration                                     // 0: it never pauses
	next    func(rng *rand.Rand, n int) (size int, long bool) // its n-th request
}

// disk is a guest's disk: virtqueue, port and device.
type disk struct {
	guest  guest
	device device
	rng    *rand.Rand

	queue       []*request // not popped
	outstanding int
	made        int
	window      int
	inFlight    int
	long        int
	completed   uint64
	slowest     time.Duration // request that completed since it was last reset
	longest     time.Duration // request that completed in this tick

	closedAt time.Duration // when the window became 0
	emptyAt  time.Duration // when nothing was in flight, after that

	grace graceClock
}

// graceClock does what aio's does.
type graceClock struct {
	epoch    int
	inFlight [2]int
	long     [2]int
	next     time.Duration
	open     bool
	going    aio.GracePeriod // its length is the time it began
	ended    []aio.GracePeriod
	last     time.Duration // length of the latest
}

const graceTick = 5 * time.Millisecond

func (g *graceClock) tick(now time.Duration) {
	if g.open || now < g.next {
		return
	}
	if g.inFlight[g.epoch] == 0 {
		g.end(now, aio.GracePeriod{})
		return
	}
	g.going = aio.GracePeriod{Length: g.next, InFlight: g.inFlight[g.epoch], Long: g.long[g.epoch] > 0}
	g.open = true
	g.epoch ^= 1
}

func (g *graceClock) end(now time.Duration, p aio.GracePeriod) {
	g.ended = append(g.ended, p)
	g.last = p.Length
	g.next = now - now%graceTick + graceTick
}

func (g *graceClock) count(epoch int, long bool, n int) {
	g.inFlight[epoch] += n
	if long {
		g.long[epoch] += n
	}
}

func (g *graceClock) finish(r *request, now time.Duration) {
	g.tick(now)
	g.count(r.epoch, r.long, -1)
	if g.open && r.epoch != g.epoch && g.inFlight[r.epoch] == 0 {
		g.open = false
		p := g.going
		p.Length = now - p.Length
		g.end(now, p)
	}
}

// sample is what drain.Reader reads from a port.
func (d *disk) sample(now time.Duration) drain.Sample {
	g := &d.grace
	s := drain.Sample{InFlight: d.inFlight, Long: d.long, Completed: d.completed, Window: d.window, Ended: g.ended}
	if d.inFlight > 0 {
		if s.Going = g.going; !g.open {
			s.Going = aio.GracePeriod{Length: g.next, InFlight: d.inFlight, Long: d.long > 0}
		}
		if s.Going.Length = now - s.Going.Length; s.Going.Length <= 0 {
			s.Going = aio.GracePeriod{}
		}
	}
	return s
}

// vm is a guest with disks.
type vm struct {
	now     time.Duration
	disks   []*disk
	stopped bool // vCPUs
	due     dueHeap
}

// dueHeap orders requests by completion.
type dueHeap []*request

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].done < h[j].done }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(r any)        { *h = append(*h, r.(*request)) }
func (h *dueHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	*h = old[:len(old)-1]
	return r
}

// run lets time pass until end.
func (v *vm) run(end time.Duration) {
	for _, d := range v.disks {
		v.issue(d)
	}
	for len(v.due) > 0 && v.due[0].done <= end {
		r := heap.Pop(&v.due).(*request)
		v.now = r.done
		d := r.disk
		d.grace.finish(r, v.now)
		d.inFlight--
		d.outstanding--
		d.completed++
		d.slowest, d.longest = max(d.slowest, v.now-r.queued), max(d.longest, v.now-r.queued)
		if r.long {
			d.long--
		}
		v.issue(d)
		if d.inFlight == 0 && d.emptyAt < d.closedAt {
			d.emptyAt = v.now
		}
	}
	v.now = end
}

// issue has the guest make requests and the port pop them.
func (v *vm) issue(d *disk) {
	for d.awake(v.now) && !v.stopped && d.outstanding < d.guest.depth {
		r := &request{disk: d, queued: v.now, size: 4096}
		if d.guest.next != nil {
			r.size, r.long = d.guest.next(d.rng, d.made)
		}
		d.made++
		d.outstanding++
		d.queue = append(d.queue, r)
	}
	for len(d.queue) > 0 && d.inFlight < d.window {
		r := d.queue[0]
		if r.long && d.long >= maxLong {
			return
		}
		d.queue = d.queue[1:]
		d.grace.tick(v.now)
		r.epoch = d.grace.epoch
		d.grace.count(r.epoch, r.long, 1)
		d.inFlight++
		if r.long {
			d.long++
		}
		if r.done = d.device.submit(v.now, r); r.done != never {
			heap.Push(&v.due, r)
		}
		if _, ok := d.device.(*unfair); ok { // others' as well
			heap.Init(&v.due)
		}
	}
}

func (d *disk) awake(now time.Duration) bool {
	g := &d.guest
	return now >= g.from && (g.on == 0 || (now-g.from)%(g.on+g.off) < g.on)
}
