package aio

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// Threads for what blocks, ebb's own or the kernel's: see Engine.fit.
	minWorkers = 64
	maxWorkers = 1024

	// spareThreads is what is left to the rest of the program: vCPUs, Go's runtime. Where it
	// can't have a thread the runtime ends the process.
	spareThreads = 64
)

// enoughThreads is an error for a process that may start too few, because of bound.
func enoughThreads(room int, bound string) error {
	if least := minWorkers + spareThreads; room < least {
		return fmt.Errorf("only %d more threads are allowed by %s, and a VM needs up to %d when its disks are slow: raise it", room, bound, least)
	}
	return nil
}

// workersIn returns the most workers an engine of this kind may have in a process that may still start as many threads.
func (k EngineKind) workersIn(room int) int {
	kinds := 1
	if k == EngineUring {
		kinds = 3 // and the two of the kernel's threads: so many of each
	}
	return min(maxWorkers, (room-spareThreads)/kinds)
}

// threadRoom returns how many threads this process may still start, as far as is known, and
// what bounds them: pids.max of its cgroups (Documentation/admin-guide/cgroup-v2.rst,
// cgroup-v1/pids.rst), or RLIMIT_NPROC, of which other processes of the user may have taken a part.
func threadRoom() (room int, bound string) {
	room, bound = cgroupRoom(os.DirFS("/"))
	var limit unix.Rlimit
	if os.Geteuid() != 0 && unix.Getrlimit(unix.RLIMIT_NPROC, &limit) == nil && limit.Cur < uint64(room) {
		return int(limit.Cur), "RLIMIT_NPROC (ulimit -u)"
	}
	return room, bound
}

// cgroupRoom is threadRoom as far as cgroups go; root is the host's file system.
func cgroupRoom(root fs.FS) (room int, bound string) {
	room = math.MaxInt
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // without it there are none
	for line := range strings.Lines(string(groups)) {
		// hierarchy:controllers:path; version 2 has no controllers here
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 || fields[1] != "" && !slices.Contains(strings.Split(fields[1], ","), "pids") {
			continue
		}
		for dir := path.Clean("/" + fields[2]); ; dir = path.Dir(dir) {
			in := path.Join("sys/fs/cgroup", fields[1], dir)
			most, err1 := readNumber(root, in+"/pids.max")
			have, err2 := readNumber(root, in+"/pids.current")
			if left := max(most-have, 0); err1 == nil && err2 == nil && left < room {
				room, bound = left, fmt.Sprintf("/%s/pids.max (%d)", in, most)
			}
			if dir == "/" {
				break
			}
		}
	}
	return room, bound
}

// readNumber reads a file with a number; "max" is none.
func readNumber(root fs.FS, name string) (int, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
