package nullblk

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Hanging is a block device that can be made to answer nothing: a device-mapper one over all of another.
type Hanging struct {
	name string
	Path string
}

// MakeHanging makes one over the device lower, whose cache and data it has.
func MakeHanging(lower string, mib int) (*Hanging, error) {
	h := &Hanging{name: "hanging-" + filepath.Base(lower)}
	table := fmt.Sprintf("0 %d linear %s 0", mib<<20/512, lower)
	if _, err := h.dmsetup("create", "--noudevsync", "--table", table); err != nil {
		return nil, err
	}
	node, err := h.dmsetup("info", "-c", "--noheadings", "-o", "blkdevname")
	if err != nil {
		_ = h.Remove()
		return nil, err
	}
	h.Path = "/dev/" + node
	return h, nil
}

// Hang keeps all requests that come from now on, until Resume.
func (h *Hanging) Hang() error {
	_, err := h.dmsetup("suspend", "--noflush", "--nolockfs")
	return err
}

// Resume lets the requests go to the disk, then and later. It may be called when nothing hangs.
func (h *Hanging) Resume() error {
	_, err := h.dmsetup("resume")
	return err
}

// Remove waits a little for who has it open.
func (h *Hanging) Remove() error {
	_, err := h.dmsetup("remove", "--retry")
	return err
}

func (h *Hanging) dmsetup(verb string, options ...string) (string, error) {
	args := append(append([]string{verb}, options...), h.name)
	out, err := exec.Command("dmsetup", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("dmsetup %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
