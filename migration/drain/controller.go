package drain

import (
	"errors"
	"time"
)

// State is where the drain of a VM's disks is.
type State uint8

const (
	Open       State = iota // windows are open
	Ebbing                  // windows shrink
	Holding                 // admission closes, disk by disk
	Drained                 // nothing is in flight, and nothing will be
	BackingOff              // windows are open after a drain that took too long, until the next try
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{"open", "ebbing", "holding", "drained", "backing off"}[s]
}

// firstBackoff doubles with every drain that took too long, up to lastBackoff.
const firstBackoff, lastBackoff = time.Second, 30 * time.Second

// Config is what a controller is made of.
type Config struct {
	Policy Policy
	Budget time.Duration           // longest that a disk may take from admission closed to nothing in flight; > 0
	Disks  []string                // names, in the order of Step's samples
	Law    func(time.Duration) Law // made with the budget, one for each disk; nil: the policy's
}

// Controller drains the disks of one VM. One goroutine may use it.
type Controller struct {
	policy  Policy
	budget  time.Duration
	state   State
	now     time.Duration
	disks   []disk
	windows []int
	ebbing  bool          // the disks' own windows hold
	closing bool          // in Holding: a disk has closed
	began   time.Duration // when the first one did; before that, when Holding began
	missed  int           // drains that came to nothing
	retry   time.Duration // when BackingOff ends
}

// New returns a controller in the state Open.
func New(cfg Config) *Controller {
	c := &Controller{policy: cfg.Policy, budget: cfg.Budget, windows: make([]int, len(cfg.Disks))}
	law := cfg.Law
	if law == nil {
		law = newAdaptive
		if cfg.Policy == Serial {
			law = func(time.Duration) Law { return serial{} }
		}
	}
	for _, name := range cfg.Disks {
		c.disks = append(c.disks, disk{name: name, budget: cfg.Budget, law: law(cfg.Budget), window: Unlimited})
	}
	return c
}

// Step takes the disks' samples at a time, and returns their windows. The slice is good until the next call.
// To be called in the state Open, too: what a disk does before EBB tells it the first window
// and what the window costs.
func (c *Controller) Step(now time.Duration, samples []Sample) []int {
	c.now = now
	if c.state == BackingOff && now >= c.retry {
		c.state = Ebbing
	}
	hung := false
	for i := range c.disks {
		c.disks[i].observe(now, samples[i])
		hung = hung || c.disks[i].hung()
	}
	c.ebbing = c.policy != Off && (c.state == Ebbing && !hung || c.state == Holding || c.state == Drained)
	for i := range c.disks {
		c.disks[i].step(c.ebbing)
	}
	if c.state == Holding {
		c.hold()
	}
	return c.bounds()
}

// bounds are the windows as they follow from the states.
func (c *Controller) bounds() []int {
	for i := range c.disks {
		switch d := &c.disks[i]; {
		case d.closed:
			c.windows[i] = 0
		case c.ebbing && c.state != BackingOff:
			c.windows[i] = d.window
		default:
			c.windows[i] = Unlimited
		}
	}
	return c.windows
}

// hold closes the disks whose time has come and looks whether all have finished.
func (c *Controller) hold() {
	last := c.began + c.budget // when all must have finished
	drained := true
	for i := range c.disks {
		d := &c.disks[i]
		switch {
		case c.policy == Off:
			drained = drained && d.s.InFlight == 0
			continue
		case d.closed || c.now < d.closes:
		case !d.flushes():
			d.closed = true
			if !c.closing {
				c.closing, c.began = true, c.now
			}
		case c.now+d.expect() > last: // it began to flush meanwhile
			c.open()
			c.state, c.ebbing = Ebbing, true
			if c.closing { // for nothing
				c.wait()
			}
			return
		}
		drained = drained && d.closed && d.s.Window == 0 && d.s.InFlight == 0
	}
	switch {
	case drained:
		c.state = Drained
	case c.closing && c.now > last:
		c.miss()
	}
}

// miss gives a drain up that takes too long.
func (c *Controller) miss() {
	for i := range c.disks {
		if d := &c.disks[i]; d.s.InFlight > 0 {
			d.law.Missed()
		}
	}
	c.open()
	c.wait()
}

// wait has the next try come later, each time more so.
func (c *Controller) wait() {
	c.retry = c.now + min(firstBackoff<<min(c.missed, 16), lastBackoff)
	c.missed++
	c.state = BackingOff
}

// Ebb has the windows shrink, from the next Step on. It is for the state Open.
func (c *Controller) Ebb() { c.state = Ebbing }

// Ready reports whether a drain begun now would fit the budget on every disk. With Off it is at once.
func (c *Controller) Ready() bool {
	if c.policy == Off {
		return c.state == Ebbing
	}
	if c.state != Ebbing {
		return false
	}
	for i := range c.disks {
		if d := &c.disks[i]; !d.ready() || d.hung() {
			return false
		}
	}
	return true
}

// Expect is how long it would take until nothing is in flight if Hold were called now.
func (c *Controller) Expect() time.Duration {
	var longest time.Duration
	for i := range c.disks {
		longest = max(longest, c.disks[i].expect())
	}
	return longest
}

// Hold closes admission so that all disks have finished at about the same time T: a disk that is expected to take D
// closes at T − D, and so stalls only for its own drain. One with nothing in flight closes at once, and so does one whose flushes
// take too long, in the moment in which it has none. It returns the windows from now on. It is for the state Ebbing, when Ready, and before anything else has happened since Step:
// a request more may be a flush.
//
// It goes back to Ebbing where a disk begins to flush before its time has come, and none after it would be soon enough.
//
// With Off nothing closes: the caller stops the vCPUs and waits, however long it takes.
func (c *Controller) Hold() []int {
	c.state, c.began, c.closing = Holding, c.now, false
	t := c.now + c.Expect()
	for i := range c.disks {
		d := &c.disks[i]
		if d.closes = t - d.expect(); d.expect() == 0 || d.flush > d.most() {
			d.closes = c.now
		}
	}
	c.hold()
	return c.bounds()
}

// Open gives up, or takes the drained disks back: it returns open windows.
func (c *Controller) Open() []int {
	c.open()
	c.state = Open
	return c.bounds()
}

func (c *Controller) open() {
	c.ebbing = false
	for i := range c.disks {
		c.disks[i].closed = false
	}
}

// State is the present state.
func (c *Controller) State() State { return c.state }

// Missed is how many drains came to nothing: they took longer than the budget, or would have, because of a flush.
func (c *Controller) Missed() int { return c.missed }

// Verdict says which disks can't be drained within the budget and what they need, as far as is known: Shortfalls,
// joined. nil: nothing speaks against it. It may change with what the guest does.
func (c *Controller) Verdict() error {
	if c.policy == Off {
		return nil
	}
	var all []error
	for i := range c.disks {
		if err := c.disks[i].verdict(); err != nil {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
