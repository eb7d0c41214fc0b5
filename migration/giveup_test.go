package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// When the destination gives up the source says the same, whichever of its connections it sees closed first: what the
// destination has said, or that the link is lost.
func TestDestinationGivesUp(t *testing.T) {
	for _, stage := range []wire.Type{wire.Join, wire.Pages} {
		for _, reason := range []string{"", "no more room"} {
			for _, first := range []string{"control", "memory"} {
				t.Run(fmt.Sprintf("%v/%q/%s", stage, reason, first), func(t *testing.T) {
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					done := make(chan error, 1)
					go func() { done <- giveUp(l, stage, reason, first) }()
					w := newWorld(t, "vda")
					g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"})
					address := l.Addr().String()
					_, said := Send(t.Context(), Options{Address: address, Streams: 1,
						Limits: Limits{Downtime: patience, Stall: 10 * patience, Timeout: patience}}, g)
					want := "the link to tcp:" + address + " is lost (closed at the other end)"
					if reason != "" {
						want = "the destination at tcp:" + address + " says: " + reason
					}
					if said == nil || said.Error() != want {
						t.Errorf("the source says %v\nwant %s", said, want)
					}
					if err := <-done; err != nil {
						t.Errorf("the destination: %v", err)
					}
					w.atSource()
				})
			}
		}
	}
}

// giveUp is a destination that goes along until a frame of a type has come on its one connection for memory.
func giveUp(l net.Listener, stage wire.Type, reason, first string) error {
	take := func() (*wire.Conn, error) {
		c, err := l.Accept()
		if err != nil {
			return nil, err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		return wire.Open(c, patience)
	}
	next := func(c *wire.Conn, t wire.Type) error {
		h, err := c.Next()
		if err == nil {
			_, err = c.Payload(h)
		}
		if err == nil && h.Type != t {
			err = fmt.Errorf("%v came for %v", h.Type, t)
		}
		return err
	}
	control, err := take()
	if err != nil {
		return err
	}
	defer control.Close()
	if err := next(control, wire.Hello); err != nil {
		return err
	}
	if err := control.Send(wire.Accept, accept{Session: "this"}); err != nil {
		return err
	}
	memory, err := take()
	if err != nil {
		return err
	}
	defer memory.Close()
	if err := next(memory, wire.Join); err != nil {
		return err
	}
	if stage != wire.Join {
		if err := memory.Send(wire.Joined, joined{}); err != nil {
			return err
		}
		if err := next(control, wire.Offered); err != nil {
			return err
		}
		if err := control.Send(wire.Reserved, nil); err != nil {
			return err
		}
		if err := next(memory, stage); err != nil {
			return err
		}
	}
	if first == "memory" {
		memory.Close()
	}
	if reason != "" {
		part(control, errors.New(reason))
	} else {
		control.Close()
	}
	return nil
}

// Who ends the machine at the destination while its guest is on the way ends the migration.
func TestDestinationEnded(t *testing.T) {
	w := newWorld(t, "vda")
	g, h := newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda")
	var once sync.Once
	g.slow = func() { once.Do(func() { close(h.ended) }) }
	g.writes = ^uint64(0) // it goes on until then
	r := w.migrate(t.Context(), g, h, Options{Limits: Limits{Downtime: time.Nanosecond, Stall: patience, Timeout: patience, Force: true}}, nil)
	const want = "the VM was ended at the destination before its guest came"
	if r.source == nil || !strings.Contains(r.source.Error(), want) || r.dest == nil || !strings.Contains(r.dest.Error(), want) {
		t.Errorf("the source says %v, the destination %v", r.source, r.dest)
	}
	w.atSource()
}

// When Send has returned nobody looks at the guest's memory.
func TestSendWaitsForItsPass(t *testing.T) {
	w := newWorld(t, "vda")
	d := &fakeDisk{world: w, id: "vda"}
	g, h := newFakeGuest(w, d), newFakeHost(w, "vda")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reopened := make(chan struct{})
	w.breakAt = func(step string) error {
		if step == "discard" {
			close(reopened)
		}
		return nil
	}
	var looked atomic.Bool
	g.slow = func() {
		cancel()
		<-reopened // the destination knows
		for i := range 20 * len(g.memory[0].Bytes) {
			g.memory[0].Bytes[i%len(g.memory[0].Bytes)] ^= 1
		}
		looked.Store(true)
	}
	l, err := Security{}.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		_, _ = Receive(t.Context(), l, ReceiveOptions{Host: h})
	}()
	_, err = Send(ctx, Options{Address: l.Addr().String(), Limits: Limits{Downtime: patience, Stall: patience, Timeout: patience}}, g)
	if err == nil || !looked.Load() {
		t.Errorf("the migration ended (%v) before its pass over memory", err)
	}
	<-received
	w.atSource()
}

// A migration that fails before the owner locks were given away opens the disks at once, however long the destination keeps the
// reservations.
func TestDisksDontWaitForReservations(t *testing.T) {
	w := newWorld(t, "vda")
	d := &fakeDisk{world: w, id: "vda"}
	held, seen := make(chan struct{}), make(chan struct{})
	w.breakAt = func(step string) error {
		switch step {
		case "sync":
			return errors.New("no sync")
		case "discard":
			<-held
		}
		return nil
	}
	go func() {
		defer close(held)
		defer close(seen)
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
			w.mu.Lock()
			open := d.syncs > 0 && w.windows["vda"] == drain.Unlimited
			w.mu.Unlock()
			if open {
				return
			}
		}
		t.Error("the disk stays closed")
	}()
	if r := w.migrate(t.Context(), newFakeGuest(w, d), newFakeHost(w, "vda"), Options{}, nil); r.source == nil {
		t.Error("it did not fail")
	}
	<-seen
	w.atSource()
}
