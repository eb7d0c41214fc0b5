package migration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/ram"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// Options of a migration.
type Options struct {
	Name      string // the VM's
	Address   string // HOST:PORT of the destination
	Limits    Limits
	Drain     drain.Policy
	Streams   int    // connections for memory; 0: DefaultStreams
	Bandwidth uint64 // bytes a second; 0: no bound
	Security  Security
	Log       *slog.Logger

	// Progress, if set, is told how it goes, some ten times a second. It must not block.
	Progress func(Progress)
}

// ErrUnconfirmed is behind the error of a migration whose destination may or may not run the guest.
var ErrUnconfirmed = errors.New("the destination did not confirm that it runs the guest")

// Send migrates a guest. When it returns nil the guest runs at the destination, and Guest.Leave was
// called. With any other error than ErrUnconfirmed it goes on here, as if nothing had happened; or, where the error says so, it is
// paused here, as the images could not be had back.
// Cancelling ctx cancels the migration, up to its commit point.
func Send(ctx context.Context, o Options, g Guest) (*Report, error) {
	if o.Streams == 0 {
		o.Streams = DefaultStreams
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Limits.Offline = o.Drain == drain.Off
	d := &sourceDriver{o: o, guest: g, disks: g.Disks(), core: NewSource(o.Limits), events: make(chan Event, 64), hurry: make(chan struct{}, 1), begin: time.Now()}
	d.report = &Report{}
	d.drains = newDrains(o.Drain, o.Limits.Stall, d.disks)
	return d.run(ctx)
}

// sourceDriver does what the source's state machine says.
type sourceDriver struct {
	o      Options
	guest  Guest
	disks  []Disk
	core   *Source
	drains *drains
	report *Report
	events chan Event
	begin  time.Time

	ctx    context.Context // of the connections, until Abandon
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	control    *wire.Conn
	limit      *rate.Limiter // of memory and files together, nil: none
	sender     *ram.Sender
	filesSent  chan struct{} // closed when the files are
	clockAhead time.Duration // of the destination's clock, as in Report
	given      chan struct{} // GIVEN came
	committed  atomic.Bool   // COMMIT is being sent, or was
	heard      chan struct{} // closed when the destination says nothing more, after said is set
	said       error
	hurry      chan struct{} // holds an element when the next pass need not wait

	hold       context.Context    // of what belongs to the hold that was begun last
	holding    context.CancelFunc // ends that
	telling    sync.Mutex         // held while HANDOVER, STATE or GIVE-BACK is sent; guards handedOver
	handedOver bool               // HANDOVER was sent, and not taken back
	mu         sync.Mutex         // guards what follows, and conns
	conns      []net.Conn
	released   []Disk // whose owner locks were given away
	offered    []Disk // whose reservations were
	turns      map[Disk]chan struct{}
	awaited    string // what the user is told while owner locks don't come back

	saving   sync.Mutex // held while the state is saved: the vCPUs must not run then
	standing bool       // they don't; guarded by saving
	state    []byte     // payload of STATE, from LastOnWay on

	settled bool // after a failure: every lock is back, or lost
	tracked bool
	shown   time.Duration
}

const (
	tickTime     = 5 * time.Millisecond
	progressTime = 100 * time.Millisecond
)

// How long the other side may keep a lock that is to come back. Tests change them.
var (
	// reclaimLimit is for owner locks. Until they are back the guest runs, but its requests wait; without them it is paused. It is longer than
	// an NFSv4 server keeps the locks of a host that died, which is its lease (RFC 8881, 8.3), mostly 90 s.
	reclaimLimit = 2 * time.Minute

	// quickReclaim is for locks that no guest waits for: reservations, and all of one that is over.
	quickReclaim = 3 * deadLink

	// slowReclaim is when the user is told.
	slowReclaim = 3 * time.Second
)

func (d *sourceDriver) now() time.Duration { return time.Since(d.begin) }

// post tells what has happened.
func (d *sourceDriver) post(e Event) {
	e.Now = d.now()
	d.events <- e
}

// run is the loop: one goroutine steps the machine and begins what it says; what takes time has
// goroutines of its own, which post events.
func (d *sourceDriver) run(ctx context.Context) (*Report, error) {
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.holding = func() {}
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	cancelled, over := ctx.Done(), d.guest.Over()
	d.step(Event{Kind: Begin})
	for !d.done() {
		select {
		case e := <-d.events:
			d.step(e)
		case <-tick.C:
			d.step(Event{Kind: Tick, Drain: d.drains.look(d.now())})
			d.show()
		case <-cancelled:
			cancelled = nil
			d.step(Event{Kind: Cancelled})
		case <-over:
			over = nil
			d.step(Event{Kind: Failed, Err: errors.New("the guest ended or reset before it was migrated")})
		}
	}
	d.cancel()
	d.close()
	d.report.ram.Lock() // the guest's memory is not looked at any more when Send returns
	d.report.finish(d)
	d.report.ram.Unlock()
	go func() { // nobody waits for the others: a disk may hang
		for range d.events {
		}
	}()
	go func() { d.tasks.Wait(); close(d.events) }()
	return d.report, d.outcome()
}

func (d *sourceDriver) done() bool {
	switch d.core.Phase() {
	case Run:
		return d.settled
	case Commit:
		return d.core.Err() != nil
	case Gone:
		return true
	}
	return false
}

func (d *sourceDriver) outcome() error {
	err := d.core.Err()
	if d.core.Phase() == Commit {
		return fmt.Errorf("%w (%w): it is stopped here; look at the destination, and only if it does not run there and has not since: `ebb resume %s --force`",
			ErrUnconfirmed, err, d.o.Name)
	}
	return err
}

func (d *sourceDriver) step(e Event) {
	if e.Now == 0 {
		e.Now = d.now()
	}
	was := d.core.Phase()
	actions := d.core.Step(e)
	if now := d.core.Phase(); now != was {
		d.report.enter(d, now, e.Now)
	}
	d.report.event(d, e)
	if e.Kind == Settled {
		d.settled = true
	}
	for _, a := range actions {
		d.do(a)
	}
}

// task runs f on a goroutine of its own. Its event is what f returns; an error is a failure.
func (d *sourceDriver) task(done EventKind, f func(ctx context.Context) (Event, error)) {
	ctx := d.ctx
	d.tasks.Go(func() {
		e, err := f(ctx)
		switch {
		case ctx.Err() != nil:
			return // abandoned: nobody is to know
		case err != nil:
			e = Event{Kind: Failed, Err: err}
		case e.Kind == Begin: // none of its own
			e.Kind = done
		}
		d.post(e)
	})
}

// background is a task whose end is no event; an error is a failure.
func (d *sourceDriver) background(f func() error) {
	ctx := d.ctx
	d.tasks.Go(func() {
		if err := f(); err != nil && ctx.Err() == nil {
			d.post(Event{Kind: Failed, Err: err})
		}
	})
}

func (d *sourceDriver) do(a Action) {
	switch a.Do {
	case Connect:
		d.task(Accepted, d.connect)
	case TrackMemory:
		d.tracked = true
		if err := d.guest.Track(true); err != nil {
			d.tasks.Go(func() { d.post(Event{Kind: Failed, Err: fmt.Errorf("no dirty log: %w", err)}) })
			return
		}
		d.writeBack()
	case SendPass:
		d.task(PassDone, func(ctx context.Context) (Event, error) { return d.pass(ctx, a.After) })
	case HurryPass:
		select {
		case d.hurry <- struct{}{}:
		default:
		}
	case Throttle:
		d.guest.Throttle(a.Percent)
		if a.Percent > 0 {
			d.report.Throttle = a.Percent
		}
	case BeginDrain:
		d.drains.control.Ebb()
		if err := d.control.Send(wire.Ahead, []byte(d.guest.SaveAhead())); err != nil {
			d.o.Log.Warn("the migration's link", "err", err) // its reader says so too
		}
	case HoldDisks:
		d.report.closing(d)
		d.drains.hold()
	case CloseDisks:
		d.closeDisks()
	case HandOver:
		ctx := d.holdContext()
		d.background(func() error { return d.handOver(ctx) })
	case TakeBack:
		d.holding()
		d.task(Returned, d.takeBack)
	case OpenDisks:
		d.holding()
		if d.core.Phase() == Run {
			d.drains.free(d.here)
		} else {
			d.drains.open()
		}
	case StopGuest:
		d.report.stopping = d.now()
		if err := d.guest.Stop(); err != nil {
			d.tasks.Go(func() { d.post(Event{Kind: Failed, Err: err}) })
			return
		}
		d.stand(true)
		d.step(Event{Kind: Stopped})
	case SendLast:
		d.task(LastSent, d.last)
	case SendState:
		hold, state := d.hold, d.state
		d.background(func() error { return d.sendState(hold, state) })
	case SendCommit:
		d.committed.Store(true)
		if err := d.control.Send(wire.Commit, nil); err != nil {
			d.step(Event{Kind: Failed, Err: d.lost(err)})
		}
	case Leave:
		d.guest.Leave()
	case Abandon:
		d.abandon(a.Err)
	case ResumeGuest:
		d.stand(false)
		d.guest.Resume()
	case Reclaim:
		d.reclaim()
		d.untrack() // after that, as the disks wait for it
	case PauseGuest, Strand:
		d.guest.Pause(a.Err.Error())
	}
}

func (d *sourceDriver) pass(ctx context.Context, after time.Duration) (Event, error) {
	if after > 0 {
		select {
		case <-d.hurry:
		case <-time.After(after):
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
	d.report.ram.Lock()
	r, err := ram.Result{}, ctx.Err()
	if err == nil {
		if r, err = d.sender.Pass(ctx); err == nil {
			d.report.passed(d, r)
		}
	}
	d.report.ram.Unlock()
	if err != nil {
		return Event{}, d.unsent(err)
	}
	select {
	case <-d.filesSent: // beside the first pass, mostly
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
	return Event{Sent: r.Bytes, Left: r.Left, Wire: r.Wire, Took: r.Sending}, nil
}

// last saves the state and sends the rest of memory. The state comes first: saving it may change memory.
func (d *sourceDriver) last(ctx context.Context) (Event, error) {
	d.report.ram.Lock()
	machine, took, err := d.save(ctx)
	if err != nil || machine == nil {
		d.report.ram.Unlock()
		return Event{}, err
	}
	r, err := d.sender.Last(ctx, func(mark uint32) {
		d.state = binary.LittleEndian.AppendUint32(nil, mark)
		d.state = binary.LittleEndian.AppendUint64(d.state, uint64(d.clockAhead))
		d.state = append(d.state, machine...)
		d.post(Event{Kind: LastOnWay, Took: took})
	})
	if err == nil {
		d.report.last(d, r, took)
	}
	d.report.ram.Unlock()
	if err != nil {
		return Event{}, d.unsent(err)
	}
	return Event{}, nil
}

// save returns the state, nil if the guest was let go on before, or the migration was abandoned.
func (d *sourceDriver) save(ctx context.Context) (machine []byte, took time.Duration, err error) {
	d.saving.Lock()
	defer d.saving.Unlock()
	if !d.standing || ctx.Err() != nil {
		return nil, 0, nil
	}
	begin := d.now()
	if machine, err = d.guest.Save(); err != nil {
		return nil, 0, fmt.Errorf("saving the state: %w", err)
	}
	return machine, d.now() - begin, nil
}

// stand notes whether the vCPUs stand, and waits for a save that is under way.
func (d *sourceDriver) stand(standing bool) {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.standing = standing
}

// sendState sends what last has saved, unless the hold is over: takeBack comes before or after.
func (d *sourceDriver) sendState(hold context.Context, state []byte) error {
	d.telling.Lock()
	defer d.telling.Unlock()
	if hold.Err() != nil {
		return nil
	}
	if err := d.control.Send(wire.State, state); err != nil {
		return d.unsent(err)
	}
	return nil
}

// abandon ends everything that belongs to the link.
func (d *sourceDriver) abandon(err error) {
	d.holding()
	d.cancel()
	d.mu.Lock()
	c := d.control
	if c != nil {
		d.conns = slices.DeleteFunc(d.conns, func(x net.Conn) bool { return x == c.Conn })
	}
	d.mu.Unlock()
	if c != nil {
		go part(c, err)
	}
	d.close()
}

// untrack ends the dirty log.
func (d *sourceDriver) untrack() {
	if d.tracked {
		d.tracked = false
		if err := d.guest.Track(false); err != nil {
			d.o.Log.Warn("the dirty log can't be ended", "err", err)
		}
	}
}

func (d *sourceDriver) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		c.Close()
	}
	d.conns = nil
}
