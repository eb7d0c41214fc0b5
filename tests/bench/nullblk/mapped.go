package nullblk

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Mapped is a device-mapper device over all of another, whose cache and data it has.
type Mapped struct {
	name string
	Path string
}

// MakeHanging makes one over the device lower that can be made to answer nothing.
func MakeHanging(lower string, mib int) (*Mapped, error) {
	return makeMapped("hanging", lower, mib, fmt.Sprintf("linear %s 0", lower))
}

// MakeDelayed makes one over the device lower that takes longer, for a flush as long as is said, in whole milliseconds.
func MakeDelayed(lower string, mib int, all, flush time.Duration) (*Mapped, error) {
	return makeMapped("delayed", lower, mib, fmt.Sprintf("delay %[1]s 0 %[2]d %[1]s 0 %[2]d %[1]s 0 %[3]d", lower, all.Milliseconds(), flush.Milliseconds()))
}

func makeMapped(kind, lower string, mib int, target string) (*Mapped, error) {
	m := &Mapped{name: kind + "-" + filepath.Base(lower)}
	if _, err := m.dmsetup("create", "--noudevsync", "--table", fmt.Sprintf("0 %d %s", mib<<20/512, target)); err != nil {
		return nil, err
	}
	node, err := m.dmsetup("info", "-c", "--noheadings", "-o", "blkdevname")
	if err != nil {
		_ = m.Remove()
		return nil, err
	}
	m.Path = "/dev/" + node
	return m, nil
}

// Hang keeps all requests that come from now on, until Resume.
func (m *Mapped) Hang() error {
	_, err := m.dmsetup("suspend", "--noflush", "--nolockfs")
	return err
}

// Resume lets the requests go to the disk, then and later. It may be called when nothing hangs.
func (m *Mapped) Resume() error {
	_, err := m.dmsetup("resume")
	return err
}

// Remove waits a little for who has it open.
func (m *Mapped) Remove() error {
	_, err := m.dmsetup("remove", "--retry")
	return err
}

func (m *Mapped) dmsetup(verb string, options ...string) (string, error) {
	args := append(append([]string{verb}, options...), m.name)
	out, err := exec.Command("dmsetup", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("dmsetup %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
