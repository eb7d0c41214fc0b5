package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/guest/report"
)

// The workload of the benchmarks: its writers write, its memory changes, and its clocks are watched.
func TestLoad(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	e := startEbb(t, append(kernelArgs("6.1", "bzImage", "load:period=100ms:depth=4:fill=4m:dirty=1m"), "--memory", "128M", "--disk", "path="+image)...)
	var last report.DiskBenchSecond
	if !e.await(func() bool {
		for line := range strings.Lines(e.stdout.String()) {
			if s, ok := report.ParseDiskBenchSecond(line); ok && strings.HasSuffix(line, "\n") {
				last = s
			}
		}
		return last.T >= 5 && last.Gap > 0 && last.Max > 0 && last.IOPS > 0
	}) {
		t.Fatalf("ebb ended; the guest's last line was %+v\n%s", last, e.transcript())
	}
	e.terminate()
	e.mustEnd(1)
}
