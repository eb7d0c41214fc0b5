package aio

// threads is the backend that needs nothing special of the kernel: ordinary system calls on
// workers. It is the slowest of the three, and works everywhere.
type threads struct {
	*poller
	workers *workers
}

// newThreads makes the backend. Nothing in it depends on the limit: a request that no worker
// is free for waits in a queue.
func newThreads(limit int) (*threads, int, error) {
	p, err := newPoller()
	if err != nil {
		return nil, 0, err
	}
	return &threads{poller: p, workers: newWorkers(p.wake)}, limit, nil
}

func (t *threads) room() int { return batch - len(t.workers.batch) }

func (t *threads) submit(op *operation) { t.workers.add(op) }

// resize sets the most operations carried out at the same time.
func (t *threads) resize(_, workers int) error {
	t.workers.resize(workers)
	return nil
}

func (t *threads) forget(fd int) { t.workers.forget(fd) }

func (t *threads) wait(block bool) error {
	t.workers.flush()
	if !block || t.poller.pending() || !t.workers.sleep() {
		return t.poller.wait(false)
	}
	err := t.poller.wait(true)
	t.workers.awake()
	return err
}

func (t *threads) pending() bool { return t.poller.pending() || t.workers.pending() }

func (t *threads) unaided() bool { return t.workers.inFlight == 0 }

func (t *threads) reap(events []event) int {
	n := t.poller.reap(events)
	return n + t.workers.reap(events[n:])
}

func (t *threads) close() error {
	t.workers.close()
	return t.poller.close()
}
