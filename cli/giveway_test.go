package cli

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// It can't be taken back without privileges, so a process of its own does it.
func TestGiveWay(t *testing.T) {
	const given = "EBB_TEST_GIVE_WAY"
	if os.Getenv(given) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestGiveWay$")
		cmd.Env = append(os.Environ(), given+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := giveWay(); err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, thread := range threads {
		tid, _ := strconv.Atoi(thread.Name())
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, tid); err != nil || 20-got != yielded {
			t.Errorf("thread %d: nice is %d, %v", tid, 20-got, err)
		}
	}
}
