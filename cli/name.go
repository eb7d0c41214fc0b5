package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// runtimeDir is where the names of running VMs are kept.
func runtimeDir() string {
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "ebb")
	}
	return "/run/ebb"
}

// claimName makes name this process's until release. The claim is a lock, so a
// process that was killed leaves none.
func claimName(name string) (release func(), err error) {
	if !validName.MatchString(name) {
		return nil, usagef("--name %q is no name; use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit", name)
	}
	dir := runtimeDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nameError(name, dir, err)
	}
	path := filepath.Join(dir, name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, nameError(name, dir, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("--name %s: another VM on this host has this name; choose a different one", name)
			}
			return nil, nameError(name, dir, err)
		}
		// Whoever had it may have removed the file between our open and our lock.
		if sameFile(f, path) {
			return func() { os.Remove(path); f.Close() }, nil
		}
		f.Close()
	}
}

func nameError(name, dir string, err error) error {
	return fmt.Errorf("--name %s can't be claimed in %s (%w); set XDG_RUNTIME_DIR to a directory you may write to", name, dir, reason(err))
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}
