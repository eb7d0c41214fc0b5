package moving

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroup throttles the processes in it; "" doesn't.
type Cgroup string

// Command runs others below the throttle.
func (c Cgroup) Command() []string {
	if c == "" {
		return nil
	}
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(string(c), "cgroup.procs")}
}

// Remove is for when all processes in it have ended. Their last writes may still be held back: they are let go first, for
// Linux 6.1 can loop for ever in throtl_pending_timer_fn where a disk goes that has such.
func (c Cgroup) Remove() {
	if c == "" {
		return
	}
	for _, t := range throttles {
		setting := filepath.Join(string(c), t.setting)
		limits, _ := os.ReadFile(setting)
		for limit := range strings.Lines(string(limits)) {
			device, _, _ := strings.Cut(limit, " ")
			_ = os.WriteFile(setting, fmt.Appendf(nil, t.none, device), 0)
		}
	}
	_ = os.Remove(string(c))
}

// throttles are the two versions of cgroups, the second one first.
var throttles = []struct {
	parent, setting string
	limit, none     string // what is written there of a device
}{
	{"/sys/fs/cgroup", "io.max", "%s wiops=%d", "%s wiops=max"},
	{"/sys/fs/cgroup/blkio", "blkio.throttle.write_iops_device", "%s %d", "%s 0"},
}

// Throttle makes a cgroup whose processes write iops times a second to each of the disks that files are, or are on.
func Throttle(iops int, files ...string) (c Cgroup, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("the throttle of the slow disk: %w", err)
		}
	}()
	t := throttles[1]
	if _, err := os.Stat(filepath.Join(throttles[0].parent, "cgroup.controllers")); err == nil {
		t = throttles[0]
		if err := os.WriteFile(filepath.Join(t.parent, "cgroup.subtree_control"), []byte("+io"), 0); err != nil {
			return "", err
		}
	}
	c = Cgroup(filepath.Join(t.parent, "ebb-bench-"+strconv.Itoa(os.Getpid())))
	if err := os.Mkdir(string(c), 0o755); err != nil {
		return "", err
	}
	for _, file := range files {
		device, err := wholeDisk(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(string(c), t.setting), fmt.Appendf(nil, t.limit, device, iops), 0)
		}
		if err != nil {
			return "", errors.Join(err, os.Remove(string(c)))
		}
	}
	return c, nil
}

// wholeDisk is the number, major:minor, of the disk that a file is, or is on; a partition can't be throttled.
func wholeDisk(file string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return "", err
	}
	number := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		number = st.Rdev
	}
	device := fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
	sys, err := filepath.EvalSymlinks("/sys/dev/block/" + device)
	if err != nil {
		return "", fmt.Errorf("%s is on no disk that could be throttled: give -dir another folder (%w)", file, err)
	}
	if _, err := os.Stat(filepath.Join(sys, "partition")); err == nil {
		sys = filepath.Dir(sys)
	}
	dev, err := os.ReadFile(filepath.Join(sys, "dev"))
	return strings.TrimSpace(string(dev)), err
}
