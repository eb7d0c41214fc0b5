package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/tests/bench/nullblk"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// The disks.
const (
	fast = "fast"
	slow = "slow"

	slowIOPS    = 200
	fastLatency = 50 * time.Millisecond // in the lab
	diskSize    = 64 << 20
)

// disk is what the guest writes to.
type disk struct {
	path   string
	cgroup string // throttles who has it open; "": none
}

// command runs others below the throttle.
func (d disk) command() []string {
	if d.cgroup == "" {
		return nil
	}
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(d.cgroup, "cgroup.procs")}
}

// free waits until nobody has it open for writing: a process that was killed with requests in flight keeps its
// locks until they are done.
func (d disk) free(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		i, err := blk.OpenImage(d.path, blk.ImageOptions{Direct: true})
		if err == nil {
			return i.Close()
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

// makeDisks makes both. In the lab the slow one is a drive that QEMU throttles, and the fast one a null_blk
// device that answers any number of requests, each after fastLatency. Elsewhere both are one file in dir, and a
// cgroup throttles who uses it as the slow one.
func makeDisks(dir string) (disks map[string]disk, remove func(), err error) {
	if lab.InLab() {
		devices, err := nullblk.Make(256, fastLatency)
		if err != nil {
			devices.Remove()
			return nil, nil, err
		}
		return map[string]disk{slow: {path: "/dev/vda"}, fast: {path: devices.Paths()[0]}}, devices.Remove, nil
	}
	path := filepath.Join(dir, "disk.img")
	if err := writeImage(path); err != nil {
		return nil, nil, err
	}
	cgroup, err := throttle(path)
	if err != nil {
		return nil, nil, err
	}
	return map[string]disk{slow: {path, cgroup}, fast: {path: path}}, func() { _ = os.Remove(cgroup) }, nil
}

// writeImage fills it, for writes to holes cost more.
func writeImage(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i)
	}
	for range diskSize / len(data) {
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	return f.Sync()
}

// throttle makes a cgroup whose processes have slowIOPS on the disk that file is on.
func throttle(file string) (cgroup string, err error) {
	device, err := wholeDisk(file)
	if err != nil {
		return "", err
	}
	parent, setting, value := "/sys/fs/cgroup/blkio", "blkio.throttle.write_iops_device", fmt.Sprintf("%s %d", device, slowIOPS)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil { // version 2
		parent, setting, value = "/sys/fs/cgroup", "io.max", fmt.Sprintf("%s wiops=%d", device, slowIOPS)
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+io"), 0); err != nil {
			return "", fmt.Errorf("the throttle of the slow disk: %w", err)
		}
	}
	cgroup = filepath.Join(parent, "ebb-bench-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		return "", fmt.Errorf("the throttle of the slow disk: %w", err)
	}
	if err := os.WriteFile(filepath.Join(cgroup, setting), []byte(value), 0); err != nil {
		return "", errors.Join(fmt.Errorf("the throttle of the slow disk: %w", err), os.Remove(cgroup))
	}
	return cgroup, nil
}

// wholeDisk is the number, major:minor, of the disk that a file is on; a partition can't be throttled.
func wholeDisk(file string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return "", err
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	sys, err := filepath.EvalSymlinks("/sys/dev/block/" + device)
	if err != nil {
		return "", fmt.Errorf("%s is on no disk that could be throttled: give -dir another folder (%w)", file, err)
	}
	if _, err := os.Stat(filepath.Join(sys, "partition")); err == nil {
		sys = filepath.Dir(sys)
	}
	number, err := os.ReadFile(filepath.Join(sys, "dev"))
	return strings.TrimSpace(string(number)), err
}
