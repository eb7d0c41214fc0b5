package migration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/migration/wire"
)

const (
	// deadLink is how long a link may be silent while something is expected of it.
	deadLink = 5 * time.Second

	// dialLimit is how long connecting may take.
	dialLimit = 10 * time.Second

	// answerLimit is how long a step of the protocol that waits for nobody's disk may take.
	answerLimit = 30 * time.Second
)

// Security is who may be at the other end of a link.
type Security struct {
	// TLSDir has ca.pem, and cert.pem and key.pem of this host, which ca.pem has signed; so must
	// the other side's be. Empty: no encryption, and nobody is asked who he is.
	TLSDir string

	// Insecure allows that beyond this host.
	Insecure bool
}

// ParseAddress reads tcp:HOST:PORT. The error doesn't repeat what it was given.
func ParseAddress(s string) (hostPort string, err error) {
	rest, ok := strings.CutPrefix(s, "tcp:")
	if !ok {
		return "", errors.New("write tcp:HOST:PORT")
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || host == "" || port == "" {
		return "", errors.New("write tcp:HOST:PORT, and an IPv6 address in brackets")
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return "", fmt.Errorf("%s is no TCP port; give a number up to 65535", port)
	}
	return rest, nil
}

// permit refuses a plain link to somewhere else.
func (s Security) permit(addr net.Addr, option string) error {
	tcp, ok := addr.(*net.TCPAddr)
	if s.TLSDir != "" || s.Insecure || ok && tcp.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s is beyond this host, where anybody could read the guest's memory or replace it: "+
		"give --tls-dir on both sides, or %s in a network that you trust", addr, option)
}

// config reads the certificates.
func (s Security) config() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(s.TLSDir, "cert.pem"), filepath.Join(s.TLSDir, "key.pem"))
	if err != nil {
		return nil, s.unusable(err)
	}
	pem, err := os.ReadFile(filepath.Join(s.TLSDir, "ca.pem"))
	if err != nil {
		return nil, s.unusable(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, s.unusable(errors.New("ca.pem has no certificate"))
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}

// unusable says what is wrong with TLSDir.
func (s Security) unusable(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = fmt.Errorf("%s: %w", filepath.Base(p.Path), p.Err)
	}
	return fmt.Errorf("--tls-dir %s can't be used (%w); give a directory with cert.pem, key.pem and ca.pem", s.TLSDir, err)
}

// tune has the kernel notice a link that died without a word (tcp(7): TCP_USER_TIMEOUT for what
// was sent, keep-alive while nothing is), and send small frames at once.
func tune(_, _ string, c syscall.RawConn) (err error) {
	outer := c.Control(func(fd uintptr) {
		for _, o := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, int(deadLink / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadLink / time.Millisecond)},
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		} {
			if e := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); e != nil && err == nil {
				err = e
			}
		}
	})
	return errors.Join(outer, err)
}

// dial connects to a destination.
func (s Security) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	d := net.Dialer{Control: tune, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("tcp:%s is not reached (%w): check the address, and that `ebb receive` waits there", address, cause(err))
	}
	if err := s.permit(c.RemoteAddr(), "--insecure"); err != nil {
		c.Close()
		return nil, err
	}
	if s.TLSDir == "" {
		return c, nil
	}
	cfg, err := s.config()
	if err != nil {
		c.Close()
		return nil, err
	}
	cfg.ServerName, _, _ = net.SplitHostPort(address)
	t := tls.Client(c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("tcp:%s: no TLS connection (%w): check --tls-dir on both sides", address, err)
	}
	return t, nil
}

// Listen waits for connections at HOST:PORT.
func (s Security) Listen(address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: tune, KeepAlive: -1}
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("can't listen there (%w); give an address of this host and a free port", cause(err))
	}
	if err := s.permit(l.Addr(), "--insecure"); err != nil {
		l.Close()
		return nil, err
	}
	if s.TLSDir == "" {
		return l, nil
	}
	cfg, err := s.config()
	if err != nil {
		l.Close()
		return nil, err
	}
	return tls.NewListener(l, cfg), nil
}

// partLimit is how long the other side may take to hear why it is over.
const partLimit = time.Second

// part says why it is over and closes the connection, once the other side has had the time to
// read that: a close with something unread would take it back (RFC 9293, 3.10.4).
func part(c *wire.Conn, why error) {
	_ = c.SetDeadline(time.Now().Add(partLimit))
	time.AfterFunc(2*partLimit, func() { c.Close() }) // whoever else sets deadlines
	_ = c.Send(wire.Abort, wire.Why{Reason: why.Error()})
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, c.Conn)
	c.Close()
}

// errClosed is a connection that has ended without a word.
var errClosed = errors.New("closed at the other end")

// broken is why a link can't be used any more: the same, whichever of its connections shows it first, to a
// reader or to a writer.
func broken(err error) error {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, end) {
			return errClosed
		}
	}
	return cause(err)
}

// cause is a network error without the addresses in front of it.
func cause(err error) error {
	var op *net.OpError
	var sys *os.SyscallError
	switch {
	case errors.As(err, &sys):
		return sys.Err
	case errors.As(err, &op) && op.Err != nil:
		return op.Err
	}
	return err
}
