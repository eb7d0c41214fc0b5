package lab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Standing is where a process that runs a guest stands: what its threads wait for, and what its guest left to KVM within a second, which it takes.
func Standing(pid int) string {
	var b strings.Builder
	threads(&b, pid)
	before := exits(pid)
	time.Sleep(time.Second)
	fmt.Fprintln(&b, "guest's exits within a second:")
	now := exits(pid)
	for _, name := range slices.Sorted(maps.Keys(now)) {
		fmt.Fprintf(&b, "  %s %d, %d in all\n", name, now[name]-before[name], now[name])
	}
	return b.String()
}

// threads writes a process's threads: name, state, processor time, and where they are in the kernel.
func threads(b *strings.Builder, pid int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		read := func(name string) string {
			data, _ := os.ReadFile(filepath.Join(task, name))
			return strings.TrimSpace(string(data))
		}
		// After the name in brackets: 3 state, 14 utime, 15 stime, 39 CPU; times in hundredths of a second (proc(5)).
		_, stat, _ := strings.Cut(read("stat"), ") ")
		if f := strings.Fields(stat); len(f) > 36 {
			fmt.Fprintf(b, "%s %s: state %s, user %s, system %s hundredths of a second, CPU %s\n", filepath.Base(task), read("comm"), f[0], f[11], f[12], f[36])
		}
		if stack := read("stack"); stack != "" {
			fmt.Fprintln(b, "    "+strings.ReplaceAll(stack, "\n", "\n    "))
		}
	}
}

// exits are KVM's counters of a process's VM and its vCPUs (Documentation/virt/kvm/api.rst, 4.133; the same in debugfs).
func exits(pid int) map[string]int64 {
	counters := map[string]int64{}
	files, _ := filepath.Glob(fmt.Sprintf("/sys/kernel/debug/kvm/%d-*/*", pid))
	for _, file := range files {
		var n int64
		if data, err := os.ReadFile(file); err == nil {
			if _, err := fmt.Sscan(string(data), &n); err == nil && n != 0 {
				counters[filepath.Base(file)] = n
			}
		}
	}
	return counters
}
