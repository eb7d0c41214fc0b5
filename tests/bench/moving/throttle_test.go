package moving

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The throttle outside the lab: 100 writes take half a second, but for what a token bucket lets through at first.
func TestThrottle(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	cgroup, err := Throttle(200, file)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(cgroup.Remove)
	argv := slices.Concat(cgroup.Command(), []string{"dd", "if=/dev/zero", "of=" + file, "bs=4096", "count=100", "oflag=direct", "conv=notrunc"})
	begin := time.Now()
	if said, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("100 writes took %v", took)
	}
}
