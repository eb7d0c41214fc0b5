package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// consoleFile is the file of --console file:F. It is opened before the guest
// starts, so that no guest runs without its console, and emptied when the guest
// has run, so that a start that fails changes nothing.
type consoleFile struct {
	file    *os.File
	regular bool
	created bool // by this process
	emptied bool
}

// namedFile is a file and the option that named it.
type namedFile struct{ option, path string }

func openConsoleFile(path string, others []namedFile) (*consoleFile, error) {
	// Without O_NONBLOCK a fifo's opening would wait for its reader.
	const flags = os.O_WRONLY | os.O_CREATE | unix.O_NOCTTY | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags|os.O_EXCL, 0o644)
	c := &consoleFile{file: f, created: err == nil}
	if errors.Is(err, fs.ErrExist) {
		c.file, err = os.OpenFile(path, flags, 0o644)
	}
	if err != nil {
		return nil, consoleError(path, err)
	}
	info, err := c.file.Stat()
	if err != nil {
		c.finish(false)
		return nil, consoleError(path, err)
	}
	c.regular = info.Mode().IsRegular()
	for _, o := range others {
		if i, err := os.Stat(o.path); err == nil && os.SameFile(i, info) {
			c.finish(false)
			return nil, usagef("--console file:%s: that is the file of %s; give one of its own", path, o.option)
		}
	}
	return c, nil
}

func consoleError(path string, err error) error {
	return fmt.Errorf("--console file:%s can't be opened for writing (%w); give a file you may write to, in a directory that exists", path, reason(err))
}

// Write implements io.Writer.
func (c *consoleFile) Write(p []byte) (int, error) {
	c.empty()
	return c.file.Write(p)
}

func (c *consoleFile) empty() {
	if c.regular && !c.emptied {
		// It was opened for writing, so there is nothing to refuse it.
		_ = c.file.Truncate(0)
	}
	c.emptied = true
}

// finish closes the file after the last Write. If the guest was not started the
// file is as it was before.
func (c *consoleFile) finish(started bool) {
	switch {
	case started:
		c.empty()
	case c.created && !c.emptied:
		os.Remove(c.file.Name())
	}
	c.file.Close()
}
