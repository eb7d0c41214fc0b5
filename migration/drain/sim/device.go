package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// never is the completion of what hangs.
const never = time.Duration(1<<63 - 1)

// device says when a request that it gets now will be complete. Devices serve in order of arrival, but for unfair.
type device interface {
	submit(now time.Duration, r *request) time.Duration
}

// servers are n disks behind one queue; the service time is drawn for each request. One server is a disk with
// a smooth limit, many are a device or network that does much at once.
type servers struct {
	free    []time.Duration // when each will be
	service func(r *request) time.Duration
	wakes   time.Duration // what one that has nothing to do takes to begin
}

func newServers(n int, service func(*request) time.Duration) *servers {
	return &servers{free: make([]time.Duration, n), service: service}
}

func (d *servers) submit(now time.Duration, r *request) time.Duration {
	i := 0
	for k := range d.free {
		if d.free[k] < d.free[i] {
			i = k
		}
	}
	d.free[i] = max(d.free[i], now+d.wakes) + d.service(r)
	return d.free[i]
}

// unfair are servers that don't care who has waited for how long, as threads that wait for a block device's tags: what comes takes
// the place of any that waits, which then is the last. So submit changes when others are complete.
type unfair struct {
	*servers
	rng    *rand.Rand
	places []place // of those that wait
}

// place is when a request's turn comes, and ends.
type place struct {
	start, done time.Duration
	taken       *request
}

func (d *unfair) submit(now time.Duration, r *request) time.Duration {
	start := max(now, slices.Min(d.free))
	done := d.servers.submit(now, r)
	d.places = slices.DeleteFunc(d.places, func(p place) bool { return p.start <= now })
	if start == now {
		return done
	}
	d.places = append(d.places, place{start, done, r})
	mine, last := &d.places[d.rng.IntN(len(d.places))], &d.places[len(d.places)-1]
	mine.taken, last.taken = last.taken, mine.taken
	last.taken.done = last.done
	return mine.done
}

// endless serves any number at once.
type endless func(r *request) time.Duration

func (d endless) submit(now time.Duration, r *request) time.Duration { return now + d(r) }

// bucket gives tokens in slices, as blkio and io.max of cgroups do: what a slice has no token for
// waits for the next.
type bucket struct {
	slice   time.Duration
	tokens  int           // a slice
	service time.Duration // of a request with a token
	phase   time.Duration

	present time.Duration // number of the slice in which the latest request got its token
	left    int
	free    time.Duration
}

func (d *bucket) submit(now time.Duration, r *request) time.Duration {
	if n := (now + d.phase) / d.slice; n > d.present {
		d.present, d.left = n, d.tokens
	}
	if d.left == 0 {
		d.present, d.left = d.present+1, d.tokens
	}
	d.left--
	d.free = max(d.free, now, d.present*d.slice-d.phase) + d.service
	return d.free
}

// hanging answers nothing from a moment on, and for a while.
type hanging struct {
	device
	from, until time.Duration
}

func (d hanging) submit(now time.Duration, r *request) time.Duration {
	done := d.device.submit(now, r)
	if done < d.from || done >= d.until && now >= d.until {
		return done
	}
	if d.until == never {
		return never
	}
	return max(done, d.until)
}

// freezing is one server that does nothing for a while in every period.
type freezing struct {
	servers
	period, frozen, phase time.Duration
}

func (d *freezing) submit(now time.Duration, r *request) time.Duration {
	start := max(d.free[0], now)
	if in := (start + d.phase) % d.period; in < d.frozen {
		d.free[0] = start + d.frozen - in
	}
	return d.servers.submit(now, r)
}

// late completes nothing for a while at the end of every period, as seen from a host whose processors are elsewhere.
type late struct {
	device
	period, away time.Duration
}

func (d late) submit(now time.Duration, r *request) time.Duration {
	done := d.device.submit(now, r)
	if left := d.period - done%d.period; left < d.away {
		return done + left
	}
	return done
}

// near returns times within ±part of the mean.
func near(rng *rand.Rand, mean time.Duration, part float64) func(*request) time.Duration {
	return func(*request) time.Duration {
		return mean + time.Duration((rng.Float64()*2-1)*part*float64(mean))
	}
}

// flushes makes long requests take between least and most, and others what they take.
func flushes(rng *rand.Rand, least, most time.Duration, others func(*request) time.Duration) func(*request) time.Duration {
	return func(r *request) time.Duration {
		if r.long {
			return least + time.Duration(rng.Int64N(int64(most-least)))
		}
		return others(r)
	}
}

// bandwidth is in bytes per second.
func bandwidth(rate float64) func(*request) time.Duration {
	return func(r *request) time.Duration {
		return time.Duration(float64(r.size) / rate * float64(time.Second))
	}
}

// quantile is the least of v that at least q of them don't exceed.
func quantile(v []time.Duration, q float64) time.Duration {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, max(0, int(float64(len(v))*q+0.9999)-1))]
}
