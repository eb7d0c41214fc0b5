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
	f := newFields(text)
	f.read("iops", float(&b.IOPS))
	f.read("p50", duration(&b.P50))
	f.read("p99", duration(&b.P99))
	f.read("p999", duration(&b.P999))
	f.read("max", duration(&b.Max))
	f.read("gap", duration(&b.Gap))
	f.read("kicks", integer(&b.Kicks))
	f.read("errors", integer(&b.Errors))
	f.read("verified", integer(&b.Verified))
	f.read("mismatches", integer(&b.Mismatches))
	f.read("slowest", rate(&b.Slowest))
	f.read("fastest", rate(&b.Fastest))
	f.read("disks", integer(&b.Disks))
	f.read("depth", integer(&b.Depth))
	f.read("size", integer(&b.Size))
	return f.failed
}

// DiskBenchSecond is one line of the benchmark when it runs for ever, a second or what else period= asks for, and of the Linux guest's
// workload load:
//
//	diskbench: t=5 at=5000012.4us iops=335668 max=5492.6us gap=4448.8us kicks=18262 errors=0 idle=0 verified=0 mismatches=0
type DiskBenchSecond struct {
	T                    int           // counts lines, from 1
	At                   time.Duration // since it began, by the guest's clock
	IOPS                 float64
	Max                  time.Duration // longest request that came back
	Gap                  time.Duration // longest time between two looks at the rings, or the clocks: a blackout is in it
	Kicks                int64
	Idle                 int   // disks of which nothing came back
	Errors               int64 // since it began, as the next two
	Verified, Mismatches int64
}

// String is the line.
func (s DiskBenchSecond) String() string {
	us := func(d time.Duration) float64 { return float64(d) / 1e3 }
	return fmt.Sprintf("%st=%d at=%.1fus iops=%.0f max=%.1fus gap=%.1fus kicks=%d errors=%d idle=%d verified=%d mismatches=%d", diskBenchPrefix,
		s.T, us(s.At), s.IOPS, us(s.Max), us(s.Gap), s.Kicks, s.Errors, s.Idle, s.Verified, s.Mismatches)
}

// ParseDiskBenchSecond reads a line of a guest's console. ok is false if it is another one.
func ParseDiskBenchSecond(line string) (s DiskBenchSecond, ok bool) {
	text, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), diskBenchPrefix+"t=")
	if !ok {
		return s, false
	}
	f := newFields("t=" + text)
	f.read("t", integer(&s.T))
	f.read("at", duration(&s.At))
	f.read("iops", float(&s.IOPS))
	f.read("max", duration(&s.Max))
	f.read("gap", duration(&s.Gap))
	f.read("kicks", integer(&s.Kicks))
	f.read("idle", integer(&s.Idle))
	f.read("errors", integer(&s.Errors))
	f.read("verified", integer(&s.Verified))
	f.read("mismatches", integer(&s.Mismatches))
	return s, f.failed == nil
}

// fields are the key=value words of a line; failed is the first that could not be read.
type fields struct {
	values map[string]string
	failed error
}

func newFields(text string) *fields {
	f := &fields{values: map[string]string{}}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		f.values[key] = value
	}
	return f
}

func (f *fields) read(key string, parse func(string) error) {
	if err := parse(f.values[key]); err != nil && f.failed == nil {
		f.failed = fmt.Errorf("%s=%s is missing or no value", key, f.values[key])
	}
}

func integer[T int | int64](to *T) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		*to = T(n)
		return err
	}
}

func float(to *float64) func(string) error {
	return func(s string) (err error) { *to, err = strconv.ParseFloat(s, 64); return }
}

func duration(to *time.Duration) func(string) error {
	return func(s string) (err error) { *to, err = time.ParseDuration(s); return }
}

// rate reads "3:84373".
func rate(to *DiskRate) func(string) error {
	return func(s string) error {
		disk, iops, _ := strings.Cut(s, ":")
		if err := integer(&to.Disk)(disk); err != nil {
			return err
		}
		return float(&to.IOPS)(iops)
	}
}
