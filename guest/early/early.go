// Package early is what a PID 1 does first: mount the kernel's file systems, load modules, read the command line, and
// in the end turn the machine off. The guest's init and the lab's agent share it.
package early

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ModuleList names the modules to load: lines of a path and parameters, in an order that works.
const ModuleList = "/etc/modules"

// Mount is one file system to mount; its folder is made if need be.
type Mount struct {
	Source, Target, Type string
	Flags                uintptr
	Data                 string
}

// Basic are the mounts every init needs.
var Basic = []Mount{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=755"},
}

// MountAll mounts one after the other and stops at the first failure.
func MountAll(mounts []Mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.Target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.Source, m.Target, m.Type, m.Flags, m.Data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.Source, m.Target, err)
		}
	}
	return nil
}

// LoadModules loads what ModuleList names. A module that is loaded already is no error. It goes on after a failure
// and returns all of them.
func LoadModules() error {
	list, err := os.Open(ModuleList)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer list.Close()
	var errs []error
	s := bufio.NewScanner(list)
	for s.Scan() {
		file, params, _ := strings.Cut(s.Text(), " ")
		if err := loadModule(file, params); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.Err())...)
}

func loadModule(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), params, 0)
	if err != nil && err != unix.EEXIST {
		return fmt.Errorf("load module %s: %w", file, err)
	}
	return nil
}

// Argument returns the value of the last key=value on the kernel command line, and whether there was one. /proc must be
// mounted.
func Argument(key string) (string, bool) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", false
	}
	value, found := "", false
	for word := range strings.FieldsSeq(string(line)) {
		if v, ok := strings.CutPrefix(word, key+"="); ok {
			value, found = v, true
		}
	}
	return value, found
}

// PowerOff turns the machine off. It does not return: where the machine has no such switch, the kernel halts.
func PowerOff() {
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// Restart resets the machine. It does not return.
func Restart() {
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}
