package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"
)

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ValidName reports whether s may name a VM or a disk.
func ValidName(s string) bool { return validName.MatchString(s) }

// RuntimeDir is where the places of running VMs are.
func RuntimeDir() string {
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "ebb")
	}
	return "/run/ebb"
}

const (
	lockSuffix   = ".lock"
	socketSuffix = ".sock"
)

// Place is where a VM is found.
type Place struct {
	name     string
	listener *net.UnixListener
	server   *Server // nil before Serve
	files    []string
	locks    []*os.File
}

// Name returns the VM's name.
func (p *Place) Name() string { return p.name }

// Claim makes the valid name this process's and opens its socket: NAME.sock in
// RuntimeDir, or path, to which NAME.sock is a symbolic link then. Connections
// wait until Serve. A claim ends with its process, however that ends; Release
// also removes the files. The error is one sentence.
func Claim(name, path string) (_ *Place, err error) {
	p := &Place{name: name}
	defer func() {
		if err != nil {
			p.Release()
		}
	}()
	dir := RuntimeDir()
	socket := filepath.Join(dir, name+socketSuffix)
	if err := p.claimName(dir, name); err != nil {
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("--name %s: another VM on this host has this name; choose a different one", name)
		}
		return nil, fmt.Errorf("--name %s can't be claimed in %s (%w); set XDG_RUNTIME_DIR to a directory you may write to", name, dir, reason(err))
	}
	if path == "" {
		if err := p.listen(socket); err != nil {
			return nil, fmt.Errorf("--name %s: its socket can't be made (%w); give --control PATH to have it elsewhere", name, reason(err))
		}
		return p, nil
	}
	if err := p.claimPath(path, dir, socket); err != nil {
		return nil, fmt.Errorf("--control %s: the socket can't be made there (%w); give a new file's path in a directory you may write to", path, reason(err))
	}
	return p, nil
}

// claimName locks the name, so that the files of that name are this process's.
func (p *Place) claimName(dir, name string) error {
	if err := ownDirectory(dir); err != nil {
		return err
	}
	if err := p.lock(filepath.Join(dir, name+lockSuffix)); err != nil {
		return err
	}
	// What a dead VM left there: its socket, or the link to its --control.
	socket := filepath.Join(dir, name+socketSuffix)
	if info, err := os.Lstat(socket); err == nil && info.Mode().Type() == fs.ModeSymlink {
		return os.Remove(socket)
	}
	return removeStale(socket)
}

func (p *Place) claimPath(path, runtime, link string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if sameFile(filepath.Dir(path), runtime) {
		return errors.New("that directory is for ebb's own files")
	}
	if err := p.lock(path + lockSuffix); err != nil {
		return err
	}
	if err := removeStale(path); err != nil {
		return err
	}
	if err := p.listen(path); err != nil {
		return err
	}
	if err := os.Symlink(path, link); err != nil {
		return err
	}
	p.files = append(p.files, link)
	return nil
}

// ownDirectory makes a directory for this user only.
func ownDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	switch me := os.Geteuid(); {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR: // a link may lead to anybody's
		return errors.New("it is no directory")
	case int(st.Uid) == me && st.Mode&0o077 != 0: // made by somebody else's hand
		return os.Chmod(dir, 0o700)
	case int(st.Uid) != me && me != 0:
		return errors.New("it is another user's")
	}
	return nil
}

var errLocked = errors.New("another VM has it")

// lock takes a lock file until Release.
func (p *Place) lock(path string) error {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return errLocked
			}
			return err
		}
		info, err := f.Stat()
		if err == nil && (!info.Mode().IsRegular() || info.Size() > 0) {
			f.Close()
			return fmt.Errorf("%s, which is to be its lock, is a file of somebody else's", filepath.Base(path))
		}
		// Whoever had it may have removed the file between our open and our lock.
		if err == nil && isFile(path, info) {
			p.locks, p.files = append(p.locks, f), append(p.files, path)
			return nil
		}
		f.Close()
	}
}

// listen opens the socket, which is Release's to remove then.
func (p *Place) listen(path string) (err error) {
	if p.listener, err = listen(path); err == nil {
		p.files = append(p.files, path)
	}
	return err
}

// Release gives the name back and removes the files; then the clients that wait
// for the VM's end see it. Call it when nothing of the machine is left.
func (p *Place) Release() {
	if p.listener != nil {
		p.listener.Close()
	}
	// The socket before its lock.
	for _, path := range slices.Backward(p.files) {
		os.Remove(path)
	}
	for _, f := range p.locks {
		f.Close()
	}
	p.files, p.locks = nil, nil
	if p.server != nil {
		p.server.close()
		p.server = nil
	}
}

func isFile(path string, info fs.FileInfo) bool {
	now, err := os.Stat(path)
	return err == nil && os.SameFile(now, info)
}

func sameFile(a, b string) bool {
	info, err := os.Stat(a)
	return err == nil && isFile(b, info)
}

// reason is a file operation's error without the call and the path that are in
// front of it.
func reason(err error) error {
	var (
		p *fs.PathError
		l *os.LinkError
		s *os.SyscallError
	)
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	case errors.As(err, &s):
		return s.Err
	}
	return err
}
