package machine

import "golang.org/x/sys/unix"

// preference is by how much nice is lowered (setpriority(2)) for a thread that is to come first. It counts for
// some ten times as much as others then.
const preference = 10

// preferred are the threads that come before others, and how nice each was.
type preferred map[int]int

// prefer has the host run threads before others. Where that isn't allowed, for want of CAP_SYS_NICE, they stay as they are.
func prefer(threads ...int) preferred {
	p := make(preferred)
	for _, t := range threads {
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, t)
		if err != nil {
			continue
		}
		nice := 20 - raw // the system call's result is never negative
		if unix.Setpriority(unix.PRIO_PROCESS, t, nice-preference) == nil {
			p[t] = nice
		}
	}
	return p
}

// end makes them as they were.
func (p preferred) end() {
	for t, nice := range p {
		_ = unix.Setpriority(unix.PRIO_PROCESS, t, nice) // raising it is always allowed; ESRCH: the thread has ended
	}
	clear(p)
}
