package aio

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestKnowsNowait(t *testing.T) {
	ext4 := openFile(t, "", unix.O_DIRECT, 1<<20)
	for _, c := range []struct {
		name  string
		fd    int
		magic int64 // of a file system that is known to do so
		want  bool
	}{
		{"tmpfs", openFile(t, "/dev/shm", unix.O_DIRECT, 1<<20), unix.TMPFS_MAGIC, false},
		{"ext4", ext4, unix.EXT4_SUPER_MAGIC, true},
	} {
		var st unix.Statfs_t
		must(t, unix.Fstatfs(c.fd, &st))
		if st.Type != c.magic {
			t.Logf("no %s here", c.name)
			continue
		}
		if got := knowsNowait(c.fd); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Only what has to is handed to the kernel's threads at once.
func TestSyncFilesAreNotTried(t *testing.T) {
	lockThread(t)
	r := newTestRing(t, 64)
	for _, sync := range []bool{false, true} {
		r.submit(&operation{code: opRead, fd: 0, sync: sync, iov: []unix.Iovec{iovec(make([]byte, 1))}})
		if got := r.sqes[(r.tail-1)&uint32(len(r.sqes)-1)].flags&sqeAsync != 0; got != sync {
			t.Errorf("sync %v: handed over %v", sync, got)
		}
		r.tail--
	}
}
