package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen makes the socket at path.
func listen(path string) (*net.UnixListener, error) {
	short, done, err := address(path)
	if err != nil {
		return nil, err
	}
	defer done()
	// The file has its mode from its first moment: that of the socket.
	mode := func(_, _ string, c syscall.RawConn) (err error) {
		outer := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(outer, err)
	}
	l, err := (&net.ListenConfig{Control: mode}).Listen(context.Background(), "unix", short)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // short may be another file's by then
	return u, nil
}

// removeStale removes the socket of a process that is gone, and nothing else.
// Preconditions: the caller has the lock beside it, so that nobody makes a new
// one at this moment.
func removeStale(path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is a file %s, and it is no socket", filepath.Base(path))
	}
	conn, err := dial(context.Background(), path)
	switch {
	case err == nil:
		conn.Close()
		return errors.New("another program listens there")
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	default:
		return err
	}
}

// dial connects to the socket at path.
func dial(ctx context.Context, path string) (net.Conn, error) {
	short, done, err := address(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return new(net.Dialer).DialContext(ctx, "unix", short)
}

// address returns a name of path that fits into a socket address, until done.
func address(path string) (short string, done func(), err error) {
	const (
		longest = len(unix.RawSockaddrUnix{}.Path) - 1
		base    = longest - len("/proc/self/fd/1234567890/")
	)
	if len(path) <= longest {
		return path, func() {}, nil
	}
	if n := len(filepath.Base(path)); n > base {
		return "", nil, fmt.Errorf("a socket's file name may have %d bytes, and this has %d", base, n)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)), func() { unix.Close(dir) }, nil
}
