package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/ebb-vmm/ebb/tests/bench/moving"
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
	cgroup moving.Cgroup // throttles who has it open
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
	cgroup, err := moving.Throttle(slowIOPS, path)
	if err != nil {
		return nil, nil, err
	}
	return map[string]disk{slow: {path, cgroup}, fast: {path: path}}, cgroup.Remove, nil
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
