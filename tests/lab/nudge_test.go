package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// A thread of the lab's PID 1 goes round the processors for as long as the lab lives.
func TestNudge(t *testing.T) {
	if !lab.InLab() {
		return // real processors need none
	}
	const wanted = 12 // four rounds of three
	before := migrations(t)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		for task, n := range migrations(t) {
			if n >= before[task]+wanted {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no thread of PID 1 changed its processor %d times in a minute: %v, then %v", wanted, before, migrations(t))
		}
	}
}

var nrMigrations = regexp.MustCompile(`nr_migrations\s*:\s*(\d+)`)

// migrations are how often the real-time threads of PID 1 changed their processors.
func migrations(t *testing.T) map[string]int {
	tasks, err := filepath.Glob("/proc/1/task/*/sched")
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue // it ended
		}
		m := nrMigrations.FindSubmatch(data)
		if m == nil || !realTime.Match(data) {
			continue
		}
		counts[task], _ = strconv.Atoi(string(m[1]))
	}
	return counts
}

// Policy 1 is SCHED_FIFO.
var realTime = regexp.MustCompile(`policy\s*:\s*1\b`)
