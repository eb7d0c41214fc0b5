package aio

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// More writes than there are threads, with O_DIRECT, wait for a file system that is frozen, as for a snapshot: another disk goes on, its flushes, too.
// With Linux AIO the first of them blocks io_submit whatever is asked, and with it the engine.
func TestFrozenFileSystem(t *testing.T) {
	dir := mountExt4(t)
	for _, kind := range []EngineKind{EngineUring, EngineThreads} {
		t.Run(kind.String(), func(t *testing.T) {
			const writes = maxWorkers + 100
			fd := fullFile(t, dir, writes*4096) // not sparse
			must(t, unix.Fsync(fd))
			e := newTestEngine(t, Config{Engine: kind})
			slow, fast := newGuest(t), newGuest(t)
			port(t, e, PortConfig{Name: "slow", FD: fd, Queues: []Queue{slow}, Demand: 2 * maxWorkers, MemoryAlign: 512})
			port(t, e, PortConfig{Name: "fast", FD: openFile(t, "", unix.O_DIRECT, 1<<20), Queues: []Queue{fast}, Demand: 16, MemoryAlign: 512})
			thaw := freeze(t, dir)
			defer thaw()
			mem := alignedBytes(4096, 4096)
			var calls []<-chan answer
			for i := range writes {
				calls = append(calls, slow.start(rw(Write, 0, int64(i)*4096, mem)))
			}
			for range 20 {
				if a := fast.do(rw(Write, 0, 0, mem)); a.err != 0 {
					t.Error(a)
				}
				if a := fast.do(ranged(Flush, 0, 0, 0)); a.err != 0 {
					t.Error(a)
				}
			}
			thaw()
			for _, call := range calls {
				if a := await(t, deadline(t), call, "the slow disk"); a.err != 0 || a.n != 4096 {
					t.Fatal(a)
				}
			}
		})
	}
}

// mountExt4 makes a file system of the test's own.
func mountExt4(t *testing.T) (dir string) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	image := filepath.Join(t.TempDir(), "ext4")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 64<<20))
	dir = t.TempDir()
	for _, argv := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if said, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no file system of its own: %s: %v: %s", argv[0], err, said)
		}
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// freeze has writes to a file system wait until thaw is called. That may be more than once.
func freeze(t *testing.T, dir string) (thaw func()) {
	const fiFreeze, fiThaw = 0xc0045877, 0xc0045878
	root, err := os.Open(dir)
	must(t, err)
	must(t, unix.IoctlSetInt(int(root.Fd()), fiFreeze, 0))
	return func() {
		if root != nil {
			must(t, unix.IoctlSetInt(int(root.Fd()), fiThaw, 0))
			must(t, root.Close())
			root = nil
		}
	}
}
