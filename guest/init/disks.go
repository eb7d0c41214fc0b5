package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/report"
)

// printReport says what the machine looks like from inside.
func printReport() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	say("kernel %s", unix.ByteSliceToString(u.Release[:]))
	cpus, err := onlineCPUs()
	if err != nil {
		return err
	}
	say("cpus %d", cpus)
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	say("memory %d", info.Totalram*uint64(info.Unit))
	disks, err := findDisks()
	if err != nil {
		return err
	}
	for _, d := range disks {
		say("%s", d)
	}
	return nil
}

// onlineCPUs counts the processors in a list like "0-3,5".
func onlineCPUs() (int, error) {
	list, err := readAttr("/sys/devices/system/cpu/online")
	if err != nil {
		return 0, err
	}
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, err1 := strconv.Atoi(first)
		hi, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil {
			return 0, fmt.Errorf("online processors are %q", list)
		}
		n += hi - lo + 1
	}
	return n, nil
}

// findDisks lists the virtio disks: vda, vdb, ... vdz, vdaa.
func findDisks() ([]report.Disk, error) {
	dirs, err := filepath.Glob("/sys/block/vd*")
	if err != nil {
		return nil, err
	}
	sort.Slice(dirs, func(i, j int) bool {
		if len(dirs[i]) != len(dirs[j]) {
			return len(dirs[i]) < len(dirs[j])
		}
		return dirs[i] < dirs[j]
	})
	var disks []report.Disk
	for _, dir := range dirs {
		d, err := readDisk(dir)
		if err != nil {
			return nil, err
		}
		disks = append(disks, d)
	}
	return disks, nil
}

func readDisk(dir string) (report.Disk, error) {
	d := report.Disk{Name: filepath.Base(dir)}
	serial, err := readAttr(dir + "/serial")
	if err != nil {
		serial = "" // a device without GET_ID answers with an error
	}
	d.Serial = strings.ReplaceAll(serial, " ", "_")
	sectors, err := readNumber(dir + "/size")
	if err != nil {
		return d, err
	}
	d.Size = sectors * 512
	ro, err := readNumber(dir + "/ro")
	if err != nil {
		return d, err
	}
	d.ReadOnly = ro != 0
	block, err := readNumber(dir + "/queue/logical_block_size")
	if err != nil {
		return d, err
	}
	d.Block = int(block)
	queues, err := filepath.Glob(dir + "/mq/*")
	d.Queues = len(queues)
	return d, err
}

func readAttr(file string) (string, error) {
	b, err := os.ReadFile(file)
	return strings.TrimSpace(string(b)), err
}

func readNumber(file string) (int64, error) {
	s, err := readAttr(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(s, 10, 64)
}
