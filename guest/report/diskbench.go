package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DiskBench is the result line of the bare-metal disk benchmark, guest/diskbench:
//
//	diskbench: iops=351000 p50=160.2us ... slowest=3:21000 fastest=0:23000 disks=16 depth=64 ...
type DiskBench struct {
	Disks, Depth, Size  int // requests in flight per disk; bytes a request
	IOPS                float64
	P50, P99, P999, Max time.Duration // submission to when the guest saw the completion
	Gap                 time.Duration // longest time between two looks at the rings
	Kicks, Errors       int64
	Slowest, Fastest    DiskRate
	Verified            int64 // blocks read and found right
	Mismatches          int64 // blocks read and found wrong
}

// DiskRate is one disk's share.
type DiskRate struct {
	Disk int // from 0, in the order of --disk
	IOPS float64
}

// Fairness is the slowest disk's rate by the fastest one's.
func (b DiskBench) Fairness() float64 { return b.Slowest.IOPS / b.Fastest.IOPS }

const diskBenchPrefix = "diskbench: "

// ParseDiskBench finds the result on a guest's console. The error is what the guest said went wrong, or what is
// missing or odd.
func ParseDiskBench(console string) (DiskBench, error) {
	var b DiskBench
	found := false
	for line := range strings.Lines(console) {
		text, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), diskBenchPrefix)
		switch {
		case !ok:
		case strings.HasPrefix(text, "FAILED: "):
			return b, fmt.Errorf("the guest: %s", strings.TrimPrefix(text, "FAILED: "))
		case strings.HasPrefix(text, "iops="):
			found = true
			if err := b.parse(text); err != nil {
				return b, fmt.Errorf("%w in the line %q", err, text)
			}
		}
	}
	if !found {
		return b, fmt.Errorf("the guest gave no result; its console: %q", console)
	}
	return b, nil
}

func (b *DiskBench) parse(text string) error {
	fields := map[string]string{}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		fields[key] = value
	}
	var failed error
	read := func(key string, parse func(string) error) {
		if err := parse(fields[key]); err != nil && failed == nil {
			failed = fmt.Errorf("%s=%s is missing or no value", key, fields[key])
		}
	}
	integer := func(to *int64) func(string) error {
		return func(s string) (err error) { *to, err = strconv.ParseInt(s, 10, 64); return }
	}
	small := func(to *int) func(string) error {
		return func(s string) (err error) { *to, err = strconv.Atoi(s); return }
	}
	duration := func(to *time.Duration) func(string) error {
		return func(s string) (err error) { *to, err = time.ParseDuration(s); return }
	}
	rate := func(to *DiskRate) func(string) error {
		return func(s string) (err error) {
			disk, iops, _ := strings.Cut(s, ":")
			if to.Disk, err = strconv.Atoi(disk); err != nil {
				return err
			}
			to.IOPS, err = strconv.ParseFloat(iops, 64)
			return err
		}
	}
	read("iops", func(s string) (err error) { b.IOPS, err = strconv.ParseFloat(s, 64); return })
	read("p50", duration(&b.P50))
	read("p99", duration(&b.P99))
	read("p999", duration(&b.P999))
	read("max", duration(&b.Max))
	read("gap", duration(&b.Gap))
	read("kicks", integer(&b.Kicks))
	read("errors", integer(&b.Errors))
	read("verified", integer(&b.Verified))
	read("mismatches", integer(&b.Mismatches))
	read("slowest", rate(&b.Slowest))
	read("fastest", rate(&b.Fastest))
	read("disks", small(&b.Disks))
	read("depth", small(&b.Depth))
	read("size", small(&b.Size))
	return failed
}
