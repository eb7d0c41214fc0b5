package migration

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// arrival is a connection that has said what it wants.
type arrival struct {
	conn  *wire.Conn
	hello *hello
	join  *join
}

func (a arrival) refuse(err error) {
	_ = a.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = a.conn.Send(wire.Refuse, wire.Why{Reason: err.Error()})
	a.conn.Close()
}

// greetLimit is how long a connection may take to say what it wants, and maxGreeting how many may be at it.
const (
	greetLimit  = 5 * time.Second
	maxGreeting = 2 * MaxStreams
)

// accept takes connections, whoever makes them, until the listener is closed.
func (r *receiver) accept(l net.Listener) {
	slots := make(chan struct{}, maxGreeting)
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			r.o.Log.Warn("a connection is not taken", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors, perhaps
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		go func() {
			defer func() { <-slots }()
			a, err := greet(c)
			if err != nil {
				r.o.Log.Warn("a connection is not a migration's", "from", c.RemoteAddr(), "err", cause(err))
				c.Close()
				return
			}
			select {
			case r.arrivals <- a:
			case <-r.gone:
				c.Close()
			case <-time.After(greetLimit):
				a.refuse(errors.New("another migration is being received here"))
			}
		}()
	}
}

// greet reads what a connection wants.
func greet(c net.Conn) (a arrival, err error) {
	if a.conn, err = wire.Open(c, greetLimit); err != nil {
		return a, err
	}
	_ = c.SetDeadline(time.Now().Add(greetLimit))
	h, err := a.conn.Next()
	if err != nil {
		return a, err
	}
	body, err := a.conn.Payload(h)
	if err != nil {
		return a, err
	}
	switch h.Type {
	case wire.Hello:
		a.hello = &hello{}
		err = wire.Decode(body, a.hello)
		a.hello.Name = wire.Printable(a.hello.Name)
	case wire.Join:
		a.join = &join{}
		err = wire.Decode(body, a.join)
	default:
		err = fmt.Errorf("%v came first", h.Type)
	}
	_ = c.SetDeadline(time.Time{})
	return a, err
}
