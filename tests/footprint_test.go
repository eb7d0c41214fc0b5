package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// footprint is what an ebb's process has of its host.
type footprint struct {
	files   []string // open, without what tells two hosts' apart
	threads []string // those of ebb's own; the Go runtime's and the kernel's workers come and go
	memory  int      // KiB in use, the guest's included
}

var inode = regexp.MustCompile(`:\[\d+\]$`)

// footprint waits until nobody is connected to its control socket.
func (e *ebb) footprint() (f footprint) {
	e.t.Helper()
	e.eventually("only the control socket is open", func() (any, bool) {
		f.files = nil
		for _, name := range e.openFiles() {
			f.files = append(f.files, inode.ReplaceAllString(filepath.Base(name), ""))
		}
		slices.Sort(f.files)
		return f.files, strings.Count(strings.Join(f.files, " "), "socket") == 1
	})
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", e.cmd.Process.Pid))
	for _, name := range names {
		if comm, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(comm), "ebb-") { // else it is gone by now
			f.threads = append(f.threads, strings.TrimSpace(string(comm)))
		}
	}
	slices.Sort(f.threads)
	f.memory = e.memory()
	return f
}

// openFiles are what its process has open.
func (e *ebb) openFiles() (names []string) {
	e.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", e.cmd.Process.Pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.transcript())
	}
	for _, f := range list {
		if name, err := os.Readlink(dir + f.Name()); err == nil { // else it is closed by now
			names = append(names, name)
		}
	}
	return names
}

// memory is how much its process uses, the guest's included, in KiB.
func (e *ebb) memory() (kib int) {
	e.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid))
	if err == nil {
		_, rss, _ := strings.Cut(string(status), "VmRSS:")
		_, err = fmt.Sscan(rss, &kib)
	}
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.transcript())
	}
	return kib
}

// wantNoGrowth checks that footprints, which follow one another, are all the same, and that
// memory doesn't go up: half of the second half have no more than half of the first.
func wantNoGrowth(t *testing.T, prints []footprint) {
	t.Helper()
	if len(prints) < 2 {
		return
	}
	var memory []int
	for i, f := range prints {
		memory = append(memory, f.memory)
		if !slices.Equal(f.files, prints[0].files) || !slices.Equal(f.threads, prints[0].threads) {
			t.Errorf("number %d has files %q and threads %q open, the first %q and %q", i, f.files, f.threads, prints[0].files, prints[0].threads)
		}
	}
	const noise = 8 << 10 // KiB: garbage, and what the guest has touched since
	if half := len(memory) / 2; median(memory[half:]) > median(memory[:half])+noise {
		t.Errorf("memory in KiB grows: %v", memory)
	}
	t.Logf("%d files, %d threads, memory in KiB %v", len(prints[0].files), len(prints[0].threads), memory)
}

func median(v []int) int { return slices.Sorted(slices.Values(v))[(len(v)-1)/2] }
