package aio

import (
	"math"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCgroupRoom(t *testing.T) {
	host := func(files ...string) fstest.MapFS {
		m := fstest.MapFS{}
		for i := 0; i < len(files); i += 2 {
			m[files[i]] = &fstest.MapFile{Data: []byte(files[i+1] + "\n")}
		}
		return m
	}
	for _, c := range []struct {
		name  string
		host  fstest.MapFS
		room  int
		bound string
	}{
		{"no cgroups", host(), math.MaxInt, ""},
		{"version 2", host("proc/self/cgroup", "0::/a/b", "sys/fs/cgroup/a/b/pids.max", "max", "sys/fs/cgroup/a/b/pids.current", "7",
			"sys/fs/cgroup/a/pids.max", "100", "sys/fs/cgroup/a/pids.current", "30"), 70, "/sys/fs/cgroup/a/pids.max (100)"},
		{"the namespace's root", host("proc/self/cgroup", "0::/", "sys/fs/cgroup/pids.max", "100", "sys/fs/cgroup/pids.current", "1"),
			99, "/sys/fs/cgroup/pids.max (100)"},
		{"version 1", host("proc/self/cgroup", "3:memory:/m\n2:cpu,pids:/x\n0::/", "sys/fs/cgroup/cpu,pids/x/pids.max", "50",
			"sys/fs/cgroup/cpu,pids/x/pids.current", "60", "sys/fs/cgroup/memory/m/pids.max", "1", "sys/fs/cgroup/memory/m/pids.current", "1"),
			0, "/sys/fs/cgroup/cpu,pids/x/pids.max (50)"},
		{"nonsense", host("proc/self/cgroup", "x\n0::/../..", "sys/fs/cgroup/pids.max", "", "sys/fs/cgroup/pids.current", "1"), math.MaxInt, ""},
	} {
		if room, bound := cgroupRoom(c.host); room != c.room || bound != c.bound {
			t.Errorf("%s: %d by %q, want %d by %q", c.name, room, bound, c.room, c.bound)
		}
	}
}

func TestWorkersIn(t *testing.T) {
	for _, c := range [][2]int{{math.MaxInt, maxWorkers}, {maxWorkers + spareThreads, maxWorkers}, {500, 500 - spareThreads}, {minWorkers + spareThreads, minWorkers}} {
		if got, err := EngineThreads.workersIn(c[0]), enoughThreads(c[0], ""); got != c[1] || err != nil {
			t.Errorf("room for %d: %d workers, %v", c[0], got, err)
		}
		if got := EngineUring.workersIn(c[0]); got != min(maxWorkers, (c[0]-spareThreads)/3) {
			t.Errorf("room for %d: %d workers of either kind", c[0], got)
		}
	}
	err := enoughThreads(minWorkers+spareThreads-1, "/x/pids.max (200)")
	if err == nil || !strings.Contains(err.Error(), "/x/pids.max (200)") {
		t.Errorf("no room: %v", err)
	}
}
