package report

import (
	"strings"
	"testing"
	"time"
)

const diskBenchLine = "diskbench: iops=345257 p50=687.8us p99=2246.6us p999=4038.9us max=5143.0us kicks=15637 errors=2 " +
	"slowest=3:84373 fastest=0:87943 disks=4 depth=64 size=4096 gap=2470.1us verified=12 mismatches=1\r\n"

func TestParseDiskBench(t *testing.T) {
	got, err := ParseDiskBench("diskbench: start disks=4\r\n" + diskBenchLine + "diskbench: done\r\n")
	if err != nil {
		t.Fatal(err)
	}
	us := func(n float64) time.Duration { return time.Duration(n * 1e3) }
	want := DiskBench{
		Disks: 4, Depth: 64, Size: 4096, IOPS: 345257, P50: us(687.8), P99: us(2246.6), P999: us(4038.9), Max: us(5143),
		Gap: us(2470.1), Kicks: 15637, Errors: 2, Slowest: DiskRate{3, 84373}, Fastest: DiskRate{0, 87943},
		Verified: 12, Mismatches: 1,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if f := got.Fairness(); f < 0.959 || f > 0.960 {
		t.Errorf("fairness %v", f)
	}
}

func TestParseDiskBenchWithoutResult(t *testing.T) {
	for name, c := range map[string]struct{ console, words string }{
		"nothing":    {"diskbench: start disks=4\r\n", "no result"},
		"failed":     {"diskbench: FAILED: there is no disk\r\n", "there is no disk"},
		"mismatch":   {diskBenchLine + "diskbench: FAILED: 1 blocks did not hold what was written\r\n", "1 blocks"},
		"cut":        {diskBenchLine[:60], "p999="},
		"no rate":    {strings.Replace(diskBenchLine, "3:84373", "3", 1), "slowest="},
		"no number":  {strings.Replace(diskBenchLine, "kicks=15637", "kicks=many", 1), "kicks=many"},
		"no latency": {strings.Replace(diskBenchLine, "5143.0us", "5143", 1), "max=5143"},
	} {
		if _, err := ParseDiskBench(c.console); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.words)
		}
	}
}

func TestParseDiskBenchSecond(t *testing.T) {
	const line = "diskbench: t=2 at=2000102.5us iops=324802 max=5332.9us gap=2077.7us kicks=21424 errors=3 idle=1 verified=4 mismatches=5\r\n"
	want := DiskBenchSecond{T: 2, At: 2000102500, IOPS: 324802, Max: 5332900, Gap: 2077700, Kicks: 21424, Errors: 3, Idle: 1, Verified: 4, Mismatches: 5}
	if got, ok := ParseDiskBenchSecond(line); !ok || got != want {
		t.Errorf("got %+v, %v", got, ok)
	}
	if got := want.String() + "\r\n"; got != line {
		t.Errorf("%q is not what was read", got)
	}
	for _, other := range []string{"", diskBenchLine, line[:40], strings.Replace(line, "t=2", "t=two", 1), "ebb: t=2"} {
		if _, ok := ParseDiskBenchSecond(other); ok {
			t.Errorf("%q was taken for a second", other)
		}
	}
}
