package aio

import "golang.org/x/sys/unix"

// park keeps a request that failed, instead of answering it, because its port wants that
// (PortConfig.Keep). It is not in the kernel and doesn't count against the capacity; the
// guest sees a request that takes its time.
func (e *Engine) park(s *slot, errno unix.Errno) {
	p := s.queue.port
	s.errno = errno
	if !s.writtenOff {
		e.sink(s)
		e.fit()
	}
	p.parked = append(p.parked, s)
	p.stats.parked.Store(int64(len(p.parked)))
	p.settle()
}

// Retry carries out again what failed and was kept for that (PortConfig.Keep), from where
// it failed. Any goroutine may call it. It doesn't wait.
func (p *Port) Retry() {
	p.engine.mail.post(func() {
		for _, s := range p.unpark() {
			s.tries = 0
			p.engine.again.push(s)
		}
	})
}

// giveUp answers what was kept with the error it failed with.
func (p *Port) giveUp() {
	for _, s := range p.unpark() {
		p.engine.answer(s, s.errno)
	}
}

func (p *Port) unpark() []*slot {
	parked := p.parked
	p.parked = nil
	p.stats.parked.Store(0)
	return parked
}
