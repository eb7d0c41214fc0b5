package cli

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// yielded is how nice (setpriority(2)) a process is that has nothing to do any more but end.
const yielded = 10

// giveWay has all threads of this process come after those of others, for good. Threads made later are as those that made them.
func giveWay() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, yielded); err != nil && err != unix.ESRCH { // it has ended
			return err
		}
	}
	return nil
}
