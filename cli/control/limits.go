package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds on what clients may cost a VM.
const (
	maxBody        = 64 << 10 // bytes
	maxHeader      = 8 << 10  // bytes
	maxConnections = 32       // that are served; the next are told so,
	maxRefusing    = 32       // this many at once; those beyond wait for their turn
	readLimit      = 10 * time.Second
	writeLimit     = 10 * time.Second
	idleLimit      = 30 * time.Second
)

// configure sets the bounds. ctx is every request's parent.
func (s *Server) configure(ctx context.Context, log *slog.Logger) {
	s.http.ReadTimeout = readLimit // of a whole request; its handling may last
	s.http.IdleTimeout = idleLimit
	s.http.MaxHeaderBytes = maxHeader
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	s.http.ConnContext = markSurplus
	s.http.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
}

// limit bounds the connections that l gives at once.
func limit(l net.Listener) net.Listener {
	return &limitedListener{
		Listener: l, slots: make(chan struct{}, maxConnections+maxRefusing), closed: make(chan struct{}),
	}
}

type limitedListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, surplus: len(l.slots) > maxConnections, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	surplus bool // beyond maxConnections: to be refused
	release func()
}

// surplusKey is what a surplus connection's context has.
type surplusKey struct{}

func markSurplus(ctx context.Context, c net.Conn) context.Context {
	if l, ok := c.(*limitedConn); ok && l.surplus {
		return context.WithValue(ctx, surplusKey{}, true)
	}
	return ctx
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}

// guard lets a request through if it is within bounds. Its body is read before
// it is handled: from then on net/http watches whether the client leaves, and has
// no deadline for that.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(surplusKey{}) != nil {
			w.Header().Set("Connection", "close")
			fail(w, Refuse(http.StatusServiceUnavailable, "%s has %d control connections already; run this again when one has ended", s.name, maxConnections))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			w.Header().Set("Connection", "close")
			if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
				err = Refuse(http.StatusRequestEntityTooLarge, "the request's body is longer than %d bytes; send a shorter one", maxBody)
			} else {
				err = Refuse(http.StatusBadRequest, "the request's body could not be read (%w); send all of it within %v", err, readLimit)
			}
			fail(w, err)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// decode reads the request's body: one JSON object with known fields only. An
// empty body is an empty object.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == io.EOF {
		return nil
	}
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			return nil
		}
		err = errors.New("something stands behind it")
	}
	return Refuse(http.StatusBadRequest, "the request's body is not the JSON object that belongs here (%w); docs/cli.md describes it", err)
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	respond(w, statusOf(err), struct {
		Error string `json:"error"`
	}{err.Error()})
}

// respond answers with v in JSON.
func respond(w http.ResponseWriter, status int, v any) {
	begin(w, status)
	send(w, v)
}

func begin(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeLimit))
	w.WriteHeader(status)
}

// send writes v in JSON. The client has writeLimit to take it.
func send(w http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil { // of our own types
		panic(fmt.Sprintf("control: %v", err))
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeLimit))
	_, _ = w.Write(append(text, '\n'))
}
