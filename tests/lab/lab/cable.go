package lab

import (
	"os"

	"golang.org/x/sys/unix"
)

// CableEnd is one end of a network cable. Whoever made the cable closes both, when no lab uses them any more.
type CableEnd struct {
	socket *os.File
	mac    string
}

// Cable makes a network cable for two labs.
func Cable() (a, b *CableEnd, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	end := func(fd int, mac string) *CableEnd { return &CableEnd{os.NewFile(uintptr(fd), "cable"), mac} }
	return end(fds[0], "52:54:00:00:00:01"), end(fds[1], "52:54:00:00:00:02"), nil
}

// Close gives the end back.
func (e *CableEnd) Close() error { return e.socket.Close() }
