package migration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/ebb-vmm/ebb/migration/ram"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// The source's connections: how they are made, what the destination says on them, and what the user is told
// when one is lost.

// connect has the destination make the machine and take the reservations, and makes the connections for memory.
func (d *sourceDriver) connect(ctx context.Context) (_ Event, err error) {
	if err := kept(d.disks); err != nil {
		return Event{}, err
	}
	files := d.guest.Files()
	defer func() {
		if err != nil {
			closeFiles(files)
		}
	}()
	session, err := d.greet(ctx, files)
	if err != nil {
		return Event{}, err
	}
	streams, trip, ahead, err := d.joinStreams(ctx, session)
	if err != nil {
		return Event{}, err
	}
	took, err := d.offerReservations(ctx)
	if err != nil {
		return Event{}, err
	}
	d.report.ram.Lock() // progress looks at it
	d.clockAhead = ahead
	d.limit = ram.Limit(d.o.Bandwidth)
	d.sender = ram.NewSender(d.guest.Regions(), d.guest, streams, d.limit)
	d.report.ram.Unlock()
	d.given, d.heard = make(chan struct{}, 1), make(chan struct{})
	d.tasks.Go(d.listen)
	d.filesSent = make(chan struct{})
	d.tasks.Go(func() {
		defer closeFiles(files)
		switch err := d.sendFiles(ctx, files); {
		case err == nil:
			close(d.filesSent)
		case ctx.Err() == nil:
			d.post(Event{Kind: Failed, Err: err})
		}
	})
	return Event{Trip: min(trip, took)}, nil
}

// greet makes the control connection, describes the machine, and looks at what the destination says of its own.
func (d *sourceDriver) greet(ctx context.Context, files []File) (session string, err error) {
	var machine json.RawMessage
	d.report.ram.Lock() // what is described is not looked at any more when Send returns, either
	if err = ctx.Err(); err == nil {
		machine, err = d.guest.Describe()
	}
	d.report.ram.Unlock()
	if err != nil {
		return "", err
	}
	control, err := d.open(ctx)
	if err != nil {
		return "", err
	}
	d.mu.Lock() // abandon may look
	d.control = control
	d.mu.Unlock()
	h := hello{Name: d.o.Name, Memory: ranges(d.guest.Regions()), Streams: d.o.Streams, Machine: machine}
	for _, f := range files {
		h.Files = append(h.Files, fileInfo{f.Name, f.Size})
	}
	if err := d.control.Send(wire.Hello, h); err != nil {
		return "", d.unanswered(err)
	}
	var a accept
	if err := answer(d.control, wire.Accept, &a); err != nil {
		return "", d.refused(err)
	}
	return a.Session, d.guest.Check(a.Machine)
}

// joinStreams makes the connections for memory, and finds how far apart the hosts' clocks are. A message there and back takes as
// long as the fastest of some: each waits for other things, too.
func (d *sourceDriver) joinStreams(ctx context.Context, session string) (streams []*wire.Conn, trip, ahead time.Duration, err error) {
	trip = time.Duration(math.MaxInt64)
	streams = make([]*wire.Conn, d.o.Streams)
	for i := range streams {
		if streams[i], err = d.open(ctx); err != nil {
			return nil, 0, 0, err
		}
		asked := time.Now()
		if err := streams[i].Send(wire.Join, join{session, i}); err != nil {
			return nil, 0, 0, d.unanswered(err)
		}
		var j joined
		if err := answer(streams[i], wire.Joined, &j); err != nil {
			return nil, 0, 0, d.unanswered(err)
		}
		if took := time.Since(asked); took < trip {
			trip, ahead = took, clockAhead(asked, took, j.Realtime)
		}
	}
	if ahead.Abs() >= clocksApart {
		d.o.Log.Warn("the destination's clock and this host's differ; the guest's go on as if they did not", "ahead", ahead)
	}
	return streams, trip, ahead, nil
}

// offerReservations has the destination take them, and returns how long that took.
func (d *sourceDriver) offerReservations(ctx context.Context) (took time.Duration, err error) {
	if err := onDisks(d.disks, func(k Disk) error { return d.offer(ctx, k) }); err != nil {
		return 0, err
	}
	asked := time.Now()
	if err := d.control.Send(wire.Offered, nil); err != nil {
		return 0, d.unanswered(err)
	}
	if err := answer(d.control, wire.Reserved, nil); err != nil {
		return 0, d.refused(err)
	}
	return time.Since(asked), nil
}

// offer gives a disk's reservation away, unless the migration was abandoned: reclaim comes before or after.
func (d *sourceDriver) offer(ctx context.Context, k Disk) error {
	return d.lock(k, func() error {
		if err := d.give(ctx, &d.offered, k); err != nil {
			return err
		}
		return k.OfferReservation()
	})
}

// clocksApart is more than a time server leaves between two hosts, and worth a line in the log.
const clocksApart = time.Second

// clockAhead is by how much the destination's CLOCK_REALTIME is ahead of this host's when it said theirs, in ns, in an answer
// that came so long after it was asked for. It is known up to half of that time; 0 where they may be equal.
func clockAhead(asked time.Time, took time.Duration, theirs int64) time.Duration {
	ahead := time.Duration(theirs-asked.UnixNano()) - took/2
	if ahead.Abs() <= took/2 {
		return 0
	}
	return ahead
}

// answer waits for a frame, no longer than answerLimit; what comes after it may take as long as it does.
func answer(c *wire.Conn, t wire.Type, out any) error {
	_ = c.SetReadDeadline(time.Now().Add(answerLimit))
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	return c.Expect(t, out)
}

// open makes a connection that ends with the migration.
func (d *sourceDriver) open(ctx context.Context) (*wire.Conn, error) {
	c, err := d.o.Security.dial(ctx, d.o.Address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	if ctx.Err() != nil {
		d.mu.Unlock()
		c.Close()
		return nil, ctx.Err()
	}
	d.conns = append(d.conns, c)
	d.mu.Unlock()
	w, err := wire.Open(c, answerLimit)
	if err != nil {
		hint := "; is it `ebb receive` that listens there, without --tls-dir?"
		switch {
		case errors.As(err, new(wire.VersionError)):
			hint = ""
		case d.o.Security.TLSDir != "": // only now a server tells what it thinks of our certificate
			hint = "; check --tls-dir on both sides"
		}
		return nil, fmt.Errorf("tcp:%s: %w%s", d.o.Address, cause(err), hint)
	}
	return w, nil
}

func (d *sourceDriver) lost(err error) error {
	return fmt.Errorf("the link to tcp:%s is lost (%w)", d.o.Address, broken(err))
}

// unanswered is the error of a connection before listen has begun. A destination that gives up says why on the
// control connection, and that is what the user should hear.
func (d *sourceDriver) unanswered(err error) error {
	if errors.As(err, new(wire.PeerError)) {
		return d.refused(err)
	}
	_ = d.control.SetReadDeadline(time.Now().Add(partLimit))
	if said := d.control.Expect(wire.Abort, nil); errors.As(said, new(wire.PeerError)) {
		return d.refused(said)
	}
	return d.lost(err)
}

// unsent is unanswered while listen runs.
func (d *sourceDriver) unsent(err error) error {
	select {
	case <-d.heard:
		return d.said
	case <-time.After(deadLink):
		return d.lost(err)
	}
}

func (d *sourceDriver) refused(err error) error {
	if p := (wire.PeerError{}); errors.As(err, &p) {
		return fmt.Errorf("the destination at tcp:%s says: %s", d.o.Address, p.Reason)
	}
	return d.lost(err)
}

// listen takes what the destination says.
func (d *sourceDriver) listen() {
	ctx := d.ctx
	defer close(d.heard)
	for {
		h, err := d.control.Next()
		var body []byte
		if err == nil {
			body, err = d.control.Payload(h)
		}
		kind := Failed
		if err == nil && h.Type == wire.Abort {
			kind, err = Aborted, wire.Reason(body)
		}
		if err != nil {
			d.said = d.refused(err)
			if ctx.Err() == nil {
				d.post(Event{Kind: kind, Err: d.said})
			}
			return
		}
		switch {
		case h.Type == wire.Ready:
			d.post(Event{Kind: DestinationReady})
		case h.Type == wire.Given:
			select {
			case d.given <- struct{}{}:
			default:
			}
		case h.Type == wire.Loaded:
			d.post(Event{Kind: Loaded})
		case h.Type == wire.Running && d.committed.Load():
			var r runs
			_ = wire.Decode(body, &r) // only for the report
			d.report.resume = r.Resume
			d.said = d.lost(io.EOF)
			d.post(Event{Kind: Runs})
			return
		default:
			d.said = fmt.Errorf("the destination sent %v, which is not its to send now", h.Type)
			d.post(Event{Kind: Failed, Err: d.said})
			return
		}
	}
}
