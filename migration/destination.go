package migration

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/migration/ram"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// ReceiveOptions of a destination.
type ReceiveOptions struct {
	Host Host
	Log  *slog.Logger

	// Coming, if set, is told who comes, when the migration was accepted.
	Coming func(name string, from net.Addr)
}

// ErrUncommitted is behind the error of a destination that has the whole guest and was not told
// whether it is its own.
var ErrUncommitted = errors.New("the source did not say that the guest is this side's")

// obeyCommit is how long after LOADED a COMMIT is obeyed. A source that has waited for commitLimit lets its user decide who runs the guest, so that
// this side, which may have stood still in between, must not decide it any more. A variable for a test.
var obeyCommit = 2 * commitLimit / 3

// Receive waits for a migration and returns the machine when its guest runs. Whoever can't be
// taken is told why, and the next one may come; a migration that was accepted and then fails is
// an error, after which nothing remains. With ErrUncommitted the machine is returned as well: it
// is complete, and runs nowhere else unless the source says otherwise. l is closed.
func Receive(ctx context.Context, l net.Listener, o ReceiveOptions) (Incoming, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &receiver{o: o, arrivals: make(chan arrival), gone: make(chan struct{})}
	go r.accept(l) // it ends with the listener, and who says nothing within greetLimit
	defer close(r.gone)
	defer l.Close()
	for {
		select {
		case a := <-r.arrivals:
			if a.hello == nil {
				a.refuse(errors.New("there is no migration that this connection could belong to"))
				continue
			}
			in, err := r.receive(ctx, a)
			if refused := (refusal{}); errors.As(err, &refused) {
				o.Log.Warn("a migration is refused", "from", a.conn.RemoteAddr(), "vm", a.hello.Name, "err", refused.error)
				continue
			}
			return in, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// refusal is an error before anything was accepted.
type refusal struct{ error }

// receiver is one Receive.
type receiver struct {
	o        ReceiveOptions
	arrivals chan arrival
	gone     chan struct{}
}

// incoming is one migration at the destination.
type incoming struct {
	*receiver
	conn    *wire.Conn
	machine Incoming
	memory  *ram.Receiver
	session string
	streams []*wire.Conn

	files    fileWriter    // the reader's of conn
	prepared bool          // AHEAD came
	owner    bool          // the images are this side's
	state    []byte        // the payload of STATE, until the memory that it needs is there
	complete atomic.Bool   // memory is, so that nothing more is expected on its connections
	loadedAt unix.Timespec // of CLOCK_BOOTTIME, which goes on while the host sleeps
}

// receive takes one migration from HELLO to RUNNING.
func (r *receiver) receive(ctx context.Context, a arrival) (_ Incoming, err error) {
	in := &incoming{receiver: r, conn: a.conn}
	stop := context.AfterFunc(ctx, func() { in.conn.Close() })
	defer stop()
	if err := in.prepare(a.hello); err != nil {
		a.refuse(err)
		return nil, refusal{err}
	}
	kept := false
	defer func() {
		if !kept {
			in.machine.Discard()
		}
		for _, s := range in.streams {
			if s != nil { // it did not come
				s.Close()
			}
		}
		in.conn.Close()
	}()
	if err = in.join(a.hello); err == nil {
		if r.o.Coming != nil {
			r.o.Coming(a.hello.Name, a.conn.RemoteAddr())
		}
		err = in.follow(ctx)
	}
	switch {
	case err == nil, errors.Is(err, ErrUncommitted):
		kept = true
		return in.machine, err
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	if err := in.machine.GiveBack(); err != nil { // at once: the source's guest waits for its images, and taking a machine apart takes a while
		r.o.Log.Warn("giving the images back", "err", err)
	}
	part(in.conn, err)
	if p := (wire.PeerError{}); errors.As(err, &p) {
		return nil, fmt.Errorf("%s is not migrated, says its source: %s", a.hello.Name, p.Reason)
	}
	return nil, fmt.Errorf("%s is not migrated: %w", a.hello.Name, err)
}

// prepare makes the machine.
func (in *incoming) prepare(h *hello) error {
	if h.Streams < 1 || h.Streams > MaxStreams {
		return fmt.Errorf("%d connections for memory are not possible; ask for 1 to %d", h.Streams, MaxStreams)
	}
	var want []ram.Region
	for _, m := range h.Memory {
		if m.GPA%ram.PageSize != 0 || m.Bytes%ram.PageSize != 0 || m.GPA+m.Bytes < m.GPA {
			return fmt.Errorf("%#x bytes of memory at %#x are not whole pages", m.Bytes, m.GPA)
		}
		want = append(want, ram.Region{GPA: m.GPA})
	}
	var err error
	if in.machine, err = in.o.Host.Prepare(h.Name, want, h.Machine); err != nil {
		return err
	}
	regions := in.machine.Regions()
	if len(regions) == len(want) {
		for i, g := range regions {
			if g.GPA != h.Memory[i].GPA || uint64(len(g.Bytes)) != h.Memory[i].Bytes {
				err = fmt.Errorf("memory at %#x has %d bytes here and %d at the source", g.GPA, len(g.Bytes), h.Memory[i].Bytes)
			}
		}
	} else {
		err = fmt.Errorf("memory has %d ranges here and %d at the source", len(regions), len(want))
	}
	if err != nil {
		in.machine.Discard()
		return err
	}
	in.memory = ram.NewReceiver(regions, h.Streams)
	in.files = fileWriter{machine: in.machine, list: h.Files}
	return nil
}

// join accepts, and waits for the connections for memory and for the reservations.
func (in *incoming) join(h *hello) error {
	var id [16]byte
	_, _ = rand.Read(id[:])
	in.session = hex.EncodeToString(id[:])
	if err := in.conn.Send(wire.Accept, accept{in.session, in.machine.Describe()}); err != nil {
		return err
	}
	// The next the source says is that its reservations are free, or why it won't come.
	offered := make(chan error, 1)
	_ = in.conn.SetReadDeadline(time.Now().Add(answerLimit))
	go func() { offered <- in.conn.Expect(wire.Offered, nil) }()
	in.streams = make([]*wire.Conn, h.Streams)
	for missing := h.Streams; ; {
		select {
		case a := <-in.arrivals:
			switch {
			case a.hello != nil:
				a.refuse(errors.New("another migration is being received here"))
			case a.join.Session != in.session || a.join.Stream < 0 || a.join.Stream >= h.Streams || in.streams[a.join.Stream] != nil:
				a.refuse(errors.New("no connection for memory is missing that this could be"))
			default:
				in.streams[a.join.Stream] = a.conn
				if err := a.conn.Send(wire.Joined, joined{time.Now().UnixNano()}); err != nil {
					return err
				}
				missing--
			}
			continue
		case err := <-offered:
			if err != nil {
				return err
			}
			if missing > 0 {
				return fmt.Errorf("%d connections for memory did not come", missing)
			}
		}
		break
	}
	_ = in.conn.SetReadDeadline(time.Time{})
	if err := in.machine.Reserve(); err != nil {
		return err
	}
	return in.conn.Send(wire.Reserved, nil)
}

// frame is what came on the control connection.
type frame struct {
	typ   wire.Type
	body  []byte
	files bool // all had come before
}

// follow does what the source says until the guest runs.
func (in *incoming) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	frames, end := make(chan frame), make(chan struct{})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() { // ends the reading
		close(end)
		for _, s := range in.streams {
			s.Close()
		}
		_ = in.conn.SetReadDeadline(time.Now())
	}()
	for i, s := range in.streams {
		reading.Go(func() {
			if err := in.memory.Stream(s, i); !in.complete.Load() {
				cancel(lostSource(err))
			}
		})
	}
	ended := make(chan struct{}) // no other frame comes
	reading.Go(func() {
		defer close(ended)
		for {
			h, err := in.conn.Next()
			if err == nil && h.Type == wire.File {
				if err := in.files.receive(in.conn, h); err != nil {
					cancel(err)
					return
				}
				continue
			}
			var body []byte
			if err == nil {
				body, err = in.conn.Payload(h)
			}
			if err != nil {
				cancel(lostSource(err))
				return
			}
			select {
			case frames <- frame{h.Type, body, in.files.complete()}:
			case <-end:
				return
			}
			if h.Type == wire.Commit || h.Type == wire.Abort {
				return
			}
		}
	})
	for loaded := false; ; {
		var f frame
		select {
		case f = <-frames:
		case <-in.memory.Marked():
			if err := in.load(&loaded); err != nil {
				return err
			}
			continue
		case a := <-in.arrivals:
			a.refuse(errors.New("another migration is being received here"))
			continue
		case <-in.machine.Over():
			return errors.New("the VM was ended at the destination before its guest came")
		case <-ctx.Done():
			// The source says why on the control connection, if it can, and closes the others as well.
			for wait := time.After(deadLink); f.typ != wire.Abort && f.typ != wire.Commit; {
				select {
				case f = <-frames:
					continue
				case <-ended:
				case <-wait:
				}
				if loaded {
					return fmt.Errorf("%w (%w)", ErrUncommitted, context.Cause(ctx))
				}
				return context.Cause(ctx)
			}
		}
		done, err := in.handle(f, &loaded)
		if done || err != nil {
			return err
		}
	}
}

func lostSource(err error) error {
	return fmt.Errorf("the link to the source is lost (%w)", broken(err))
}

// handle does what one frame says, and reports whether the guest runs.
func (in *incoming) handle(f frame, loaded *bool) (done bool, err error) {
	wrong := fmt.Errorf("the source sent %v, which is not its to send now", f.typ)
	switch f.typ {
	case wire.Abort:
		return false, wire.Reason(f.body)
	case wire.Ahead:
		if in.prepared || !f.files {
			return false, wrong
		}
		in.prepared = true
		return false, in.machine.Prepare(f.body)
	case wire.Handover:
		if in.owner || *loaded {
			return false, wrong
		}
		if err := in.machine.TakeOver(); err != nil {
			return false, err
		}
		in.owner = true
		return false, in.conn.Send(wire.Ready, nil)
	case wire.GiveBack:
		undo := *loaded
		*loaded, in.state = false, nil // the source's guest goes on
		in.complete.Store(false)
		if in.owner {
			if err := in.machine.GiveBack(); err != nil {
				return false, err
			}
			in.owner = false
		}
		if err := in.conn.Send(wire.Given, nil); err != nil {
			return false, err
		}
		if undo { // now that the source's disks don't wait for it
			in.machine.Unload()
		}
		return false, nil
	case wire.State:
		if !in.prepared || !in.owner || *loaded || in.state != nil {
			return false, wrong
		}
		if len(f.body) < stateHead {
			return false, fmt.Errorf("a state of %d bytes", len(f.body))
		}
		in.state = f.body
		return false, in.load(loaded)
	case wire.Commit:
		if !*loaded {
			return false, wrong
		}
		if late := in.sinceLoaded(); late > obeyCommit {
			return false, fmt.Errorf("%w in time, but %v after its state was loaded", ErrUncommitted, late.Round(time.Second))
		}
		begin := time.Now()
		in.machine.Run()
		// If this is lost, the source doesn't know, and says so.
		_ = in.conn.SetWriteDeadline(time.Now().Add(deadLink))
		_ = in.conn.Send(wire.Running, runs{time.Since(begin)})
		return true, nil
	}
	return false, wrong
}

func (in *incoming) sinceLoaded() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return time.Duration(now.Nano() - in.loadedAt.Nano())
}

// stateHead is the bytes of STATE before the machine's: a mark, and how far the clocks are apart.
const stateHead = 12

// load loads the state, if it came and memory is complete, and says so.
func (in *incoming) load(loaded *bool) error {
	if in.state == nil || !in.memory.Complete(binary.LittleEndian.Uint32(in.state)) {
		return nil
	}
	in.complete.Store(true)
	state := in.state
	in.state = nil
	if err := in.machine.Load(state[stateHead:], time.Duration(binary.LittleEndian.Uint64(state[4:]))); err != nil {
		return fmt.Errorf("the state can't be loaded: %w", err)
	}
	*loaded = true
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &in.loadedAt) // it has that clock
	return in.conn.Send(wire.Loaded, nil)
}
