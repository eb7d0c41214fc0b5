package migration

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// cutter is a link that breaks when a frame of a type is about to pass.
type cutter struct {
	t  *testing.T
	at wire.Type

	mu    sync.Mutex
	conns []net.Conn
	cut   bool
	gone  chan struct{} // closed at the cut
}

func newCutter(t *testing.T, at wire.Type) *cutter {
	return &cutter{t: t, at: at, gone: make(chan struct{})}
}

// relay makes a link and returns its end at the source: made is called with both ends of each connection.
func relay(t *testing.T, destination string, made func(a, b net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", destination)
			if err != nil {
				a.Close()
				continue
			}
			made(a, b)
		}
	}()
	return l.Addr().String()
}

func (c *cutter) through(destination string) string {
	return relay(c.t, destination, func(a, b net.Conn) {
		c.mu.Lock()
		c.conns = append(c.conns, a, b)
		c.mu.Unlock()
		go c.pass(a, b)
		go c.pass(b, a)
	})
}

// pass lets frames pass in one direction, up to the cut.
func (c *cutter) pass(from, to net.Conn) {
	frames(from, to, func(typ wire.Type) bool {
		if typ == c.at {
			c.breakLink()
		}
		return typ != c.at
	})
}

// frames lets frames pass in one direction, until one comes that is not to.
func frames(from, to net.Conn, pass func(wire.Type) bool) {
	half := func() { _ = to.(*net.TCPConn).CloseWrite() }
	var preamble [8]byte
	if _, err := io.ReadFull(from, preamble[:]); err != nil {
		half()
		return
	}
	_, _ = to.Write(preamble[:])
	for {
		var header [wire.HeaderSize]byte
		if _, err := io.ReadFull(from, header[:]); err != nil {
			half()
			return
		}
		if !pass(wire.Type(header[0])) {
			return
		}
		if _, err := to.Write(header[:]); err != nil {
			return
		}
		if _, err := io.CopyN(to, from, int64(binary.LittleEndian.Uint32(header[4:]))); err != nil {
			half()
			return
		}
	}
}

func (c *cutter) breakLink() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return
	}
	c.cut = true
	close(c.gone)
	for _, conn := range c.conns {
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset
		conn.Close()
	}
}

// Wherever the link breaks, at most one side runs the guest; before the commit point it is the source.
func TestCutLink(t *testing.T) {
	for at := wire.Hello; at <= wire.Mark; at++ {
		if at == wire.Refuse || at == wire.GiveBack || at == wire.Given || at == wire.Abort {
			continue // not on the straight way
		}
		t.Run(at.String(), func(t *testing.T) {
			w := newWorld(t, "vda", "vdb")
			g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"}, &fakeDisk{world: w, id: "vdb"})
			c := newCutter(t, at)
			h := newFakeHost(w, "vda", "vdb")
			if at == wire.Hello { // the destination has heard nothing, and waits on
				h.refused = c.gone
			}
			r := w.migrate(t.Context(), g, h, Options{}, c.through)
			select {
			case <-c.gone:
			default:
				t.Fatalf("no %v came: source %v, destination %v", at, r.source, r.dest)
			}
			switch at {
			case wire.Commit:
				if !errors.Is(r.source, ErrUnconfirmed) || !errors.Is(r.dest, ErrUncommitted) || r.in == nil || w.runner != "" {
					t.Errorf("source %v, destination %v; the guest runs at %q", r.source, r.dest, w.runner)
				}
				w.check()
			case wire.Running:
				if !errors.Is(r.source, ErrUnconfirmed) || r.dest != nil || w.runner != "destination" || w.left {
					t.Errorf("source %v, destination %v; the guest runs at %q", r.source, r.dest, w.runner)
				}
				w.check()
			default:
				if r.source == nil || r.dest == nil || errors.Is(r.dest, ErrUncommitted) != (at == wire.Loaded) {
					t.Errorf("source %v, destination %v", r.source, r.dest)
				}
				w.atSource()
			}
		})
	}
}

// A destination that was sent the last of memory and says nothing any more, as one that is stopped, keeps nobody standing: also where
// the stop itself has no bound.
func TestLastOfMemoryIsNotConfirmed(t *testing.T) {
	defer func(before time.Duration) { commitLimit = before }(commitLimit)
	commitLimit = 2 * time.Second
	w := newWorld(t, "vda")
	var ready atomic.Bool
	mute := func(a, b net.Conn) {
		t.Cleanup(func() { a.Close(); b.Close() })
		go frames(a, b, func(wire.Type) bool { return true })
		go frames(b, a, func(typ wire.Type) bool {
			if typ == wire.Ready {
				ready.Store(true)
			}
			return typ != wire.Mark || !ready.Load()
		})
	}
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"),
		Options{Drain: drain.Off}, func(address string) string { return relay(t, address, mute) })
	const want = "the destination has not taken the last of memory within 2s"
	if r.source == nil || r.source.Error() != want || r.dest == nil || !strings.Contains(r.dest.Error(), want) {
		t.Errorf("the source says %v, the destination %v", r.source, r.dest)
	}
	w.atSource()
}

// A second source is told that there is one already, and the first goes on.
func TestSecondSource(t *testing.T) {
	w, other := newWorld(t, "vda"), newWorld(t, "vda")
	arrived, refused := make(chan string, 1), make(chan struct{})
	var address string
	w.breakAt = func(s string) error {
		if s == "take over" {
			arrived <- address
			select {
			case <-refused:
			case <-time.After(patience):
				t.Error("nobody was refused")
			}
		}
		return nil
	}
	go func() {
		defer close(refused)
		g := newFakeGuest(other, &fakeDisk{world: other, id: "vda"})
		address := <-arrived
		_, err := Send(t.Context(), Options{Address: address, Limits: Limits{Downtime: time.Second, Stall: time.Second}}, g)
		if err == nil || err.Error() != "the destination at tcp:"+address+" says: another migration is being received here" {
			t.Errorf("the second: %v", err)
		}
		other.atSource()
	}()
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{},
		func(a string) string { address = a; return a })
	if r.source != nil || r.dest != nil {
		t.Errorf("source %v, destination %v", r.source, r.dest)
	}
	w.atDestination()
}

// Whatever else knocks at the port, a migration that comes then is taken.
func TestStrangers(t *testing.T) {
	w := newWorld(t, "vda")
	r := w.migrate(t.Context(), newFakeGuest(w, &fakeDisk{world: w, id: "vda"}), newFakeHost(w, "vda"), Options{}, func(address string) string {
		for _, said := range []string{"GET / HTTP/1.1\r\n\r\n", "", "ebb-mig\x02" + string(make([]byte, 100)), "ebb-mig\x02\x01\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00", "ebb-mig\x09"} {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte(said))
			if said == "" { // one that never says anything
				t.Cleanup(func() { c.Close() })
				continue
			}
			c.Close()
		}
		return address
	})
	if r.source != nil || r.dest != nil {
		t.Errorf("source %v, destination %v", r.source, r.dest)
	}
	w.atDestination()
}
