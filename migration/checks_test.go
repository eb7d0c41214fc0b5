package migration

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// Checks that only matter when two things happen at once: each is asked by itself, as if the other had come just before.

// Nothing is given away once a migration or its hold is over: reclaim may have been there before.
func TestNothingIsGivenAwayAfterTheEnd(t *testing.T) {
	w := newWorld(t, "vda")
	k := &fakeDisk{world: w, id: "vda"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := &sourceDriver{disks: []Disk{k}}
	if err := d.offer(ctx, k); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := d.release(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	w.atSource()
}

// The state is saved only while the vCPUs stand, and not for a migration that is over.
func TestSaveOfAGuestThatGoesOn(t *testing.T) {
	w := newWorld(t)
	saves := 0
	w.breakAt = func(string) error { saves++; return nil }
	d := &sourceDriver{guest: newFakeGuest(w)}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx    context.Context
		stands bool
		saves  int
	}{{t.Context(), true, 1}, {over, true, 0}, {t.Context(), false, 0}} {
		d.stand(c.stands)
		saves = 0
		state, _, err := d.save(c.ctx)
		if err != nil || saves != c.saves || (state != nil) != (c.saves > 0) {
			t.Errorf("standing %v, ended %v: saved %d times, state %q, %v", c.stands, c.ctx.Err() != nil, saves, state, err)
		}
	}
}

// What takes the images back waits for a GIVEN after its GIVE-BACK, which one that came before is not; and asks for nothing that it didn't
// give away.
func TestTakeBack(t *testing.T) {
	w := newWorld(t, "vda")
	k := &fakeDisk{world: w, id: "vda"}
	w.owner["vda"] = "destination"
	control, peer := opened(t)
	d := &sourceDriver{disks: []Disk{k}, released: []Disk{k}, handedOver: true, control: control, given: make(chan struct{}, 1)}
	d.given <- struct{}{}
	back := make(chan error, 1)
	go func() { _, err := d.takeBack(t.Context()); back <- err }()
	var frame [wire.HeaderSize]byte
	if _, err := peer.Read(frame[:1]); err != nil || wire.Type(frame[0]) != wire.GiveBack { // the rest of it is still being sent
		t.Fatalf("%v, %v", wire.Type(frame[0]), err)
	}
	if len(d.given) > 0 {
		t.Error("a GIVEN that nobody asked for counts")
	}
	_ = w.lock(w.owner, "vda", "destination", false)
	if _, err := peer.Read(frame[1:]); err != nil {
		t.Fatal(err)
	}
	d.given <- struct{}{}
	if err := <-back; err != nil {
		t.Error(err)
	}
	w.atSource()
	peer.Close()
	if _, err := d.takeBack(t.Context()); err != nil {
		t.Errorf("what was not given away is asked for: %v", err)
	}
}

// STATE isn't sent any more once its hold is over: GIVE-BACK may have been.
func TestNoStateAfterTheHold(t *testing.T) {
	control, peer := opened(t)
	d := &sourceDriver{ctx: t.Context(), holding: func() {}, control: control}
	_ = control.SetDeadline(time.Now().Add(time.Second)) // nobody reads
	hold := d.holdContext()
	d.holding()
	if err := d.sendState(hold, nil); err != nil {
		t.Error(err)
	}
	control.Close()
	if n, err := peer.Read(make([]byte, 1)); n > 0 {
		t.Errorf("it is sent (%v)", err)
	}
}

// opened is a connection with frames on it, whose other end reads and writes bytes: a write there is over when it was read.
func opened(t *testing.T) (*wire.Conn, net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	_ = b.SetDeadline(time.Now().Add(patience))
	conn := make(chan *wire.Conn, 1)
	go func() {
		c, err := wire.Open(a, patience)
		if err != nil {
			t.Error(err)
		}
		conn <- c
	}()
	preamble(t, b)
	return <-conn, b
}

// preamble exchanges preambles on the other end.
func preamble(t *testing.T, c net.Conn) {
	t.Helper()
	var theirs [8]byte
	_, err := c.Read(theirs[:])
	if err == nil {
		_, err = c.Write(theirs[:])
	}
	if err != nil {
		t.Error(err)
	}
}

// bounded notes a read that has no deadline.
type bounded struct {
	net.Conn
	mu        sync.Mutex
	until     time.Time
	unbounded bool
}

func (c *bounded) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	return c.Conn.SetReadDeadline(t)
}

func (c *bounded) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *bounded) Read(b []byte) (int, error) {
	c.mu.Lock()
	c.unbounded = c.unbounded || c.until.IsZero()
	c.mu.Unlock()
	return c.Conn.Read(b)
}

// check says whether reads had deadlines, and that none is left.
func (c *bounded) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unbounded || !c.until.IsZero() {
		t.Errorf("a read without a deadline: %v; the one at the end: %v", c.unbounded, c.until)
	}
}

// Who connects and then says nothing keeps nobody waiting.
func TestSilentConnection(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	go func() {
		preamble(t, there)
		frame := append(make([]byte, wire.HeaderSize), "{}"...)
		wire.Seal(wire.Join, frame)
		_, _ = there.Write(frame)
	}()
	c := &bounded{Conn: here}
	if a, err := greet(c); err != nil || a.join == nil {
		t.Errorf("%+v, %v", a, err)
	}
	c.check(t)
}

// Nor does a source that was accepted.
func TestSilentSource(t *testing.T) {
	w := newWorld(t)
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	go func() {
		preamble(t, there)
		source := make([]byte, 512)
		_, _ = there.Read(source) // ACCEPT
		frame := make([]byte, wire.HeaderSize)
		wire.Seal(wire.Offered, frame)
		_, _ = there.Write(frame)
		_, _ = there.Read(source) // RESERVED
	}()
	c := &bounded{Conn: here}
	conn, err := wire.Open(c, patience)
	if err != nil {
		t.Fatal(err)
	}
	in := &incoming{receiver: &receiver{arrivals: make(chan arrival)}, conn: conn, machine: &fakeIncoming{newFakeHost(w)}}
	if err := in.join(&hello{}); err != nil {
		t.Error(err)
	}
	c.check(t)
}
