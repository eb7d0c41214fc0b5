package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/guest/report"
)

// workloads by name; what each does stands at its function. The keys are all that it takes, with their defaults.
var workloads = map[string]struct {
	run  func(a args) error
	keys string
}{
	"poweroff": {powerOff, ""},                                            // at once; as the only workload even before the report
	"reboot":   {reboot, "once="},                                         // once=DISK: only if that disk's last sector has no mark yet
	"panic":    {crash, ""},                                               // the kernel's
	"report":   {nothing, ""},                                             // which is printed anyway
	"idle":     {idle, "count=100 every=100ms"},                           // prints a counter and the clock
	"pattern":  {writePattern, "disks= offset=0 size= block=64k check=1"}, // package pattern, by serial
	"verify":   {verifyPattern, "disks= offset=0 size= block=64k"},
	"discard":  {discard, "disks= offset=0 size=4m"},                 // BLKDISCARD and BLKZEROOUT
	"ioerror":  {ioErrors, "disks= op="},                             // op=read@0+4096, write@, discard@, zero@ or flush; may be repeated
	"fio":      {fio, "disks= size=16m depth=16"},                    // crc32c verify with flushes beside random trims
	"ext4":     {ext4, "disks= files=24 size=256k rounds=2"},         // files with checksums, fsync, fstrim, remount
	"ledger":   {ledger, "disks= size=4m depth=16 epoch=1"},          // rewrites and rereads blocks until a line is typed
	"load":     {load, "disks= depth=0 fill=0 dirty=0 period=200ms"}, // keeps disks and memory busy for ever, and says what its clocks see
}

// runAll runs the workloads of an ebb.run= argument in order, up to the first that fails.
func runAll(list string) {
	for item := range strings.SplitSeq(list, ",") {
		name, _, _ := strings.Cut(item, ":")
		if err := runOne(item); err != nil {
			say("%s FAILED: %v", name, err)
			say("done FAILED: %s", name)
			return
		}
		say("%s ok", name)
	}
	say("done ok")
}

func runOne(item string) error {
	name, rest, _ := strings.Cut(item, ":")
	w, ok := workloads[name]
	if !ok {
		return fmt.Errorf("no such workload")
	}
	a, err := parseArgs(rest, w.keys)
	if err != nil {
		return err
	}
	return w.run(a)
}

// args are the values of a workload's keys; a key given several times has several.
type args map[string][]string

// parseArgs reads "key=value:key=value" on top of defaults, "key=value key=value", which hold every allowed key.
func parseArgs(text, defaults string) (args, error) {
	a := args{}
	for kv := range strings.FieldsSeq(defaults) {
		key, value, _ := strings.Cut(kv, "=")
		a[key] = []string{value}
	}
	if text == "" {
		return a, nil
	}
	given := map[string]bool{}
	for kv := range strings.SplitSeq(text, ":") {
		key, value, ok := strings.Cut(kv, "=")
		if _, known := a[key]; !known || !ok {
			return nil, fmt.Errorf("%q is none of its keys (%s)", kv, defaults)
		}
		if !given[key] {
			a[key] = nil
			given[key] = true
		}
		a[key] = append(a[key], value)
	}
	return a, nil
}

func (a args) text(key string) string { return a[key][len(a[key])-1] }

// number reads bytes or a count, with an optional k, m or g; empty is 0.
func (a args) number(key string) (int64, error) {
	n, err := parseSize(a.text(key))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", key, err)
	}
	return n, nil
}

// numbers reads several.
func (a args) numbers(keys ...string) (list []int64, err error) {
	for _, key := range keys {
		n, err := a.number(key)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

func (a args) duration(key string) (time.Duration, error) { return time.ParseDuration(a.text(key)) }

func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	shift := 0
	switch s[len(s)-1] {
	case 'k', 'K':
		shift = 10
	case 'm', 'M':
		shift = 20
	case 'g', 'G':
		shift = 30
	}
	if shift > 0 {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n<<shift>>shift != n {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}

// disks are those named by "disks=vda+vdb", or all. Read-only ones are left out where writable is asked for, unless
// named. It is an error if there are none.
func (a args) disks(writable bool) ([]report.Disk, error) {
	all, err := findDisks()
	if err != nil {
		return nil, err
	}
	var chosen []report.Disk
	if names := a.text("disks"); names != "" {
		for name := range strings.SplitSeq(names, "+") {
			i := slices.IndexFunc(all, func(d report.Disk) bool { return d.Name == name })
			if i < 0 {
				return nil, fmt.Errorf("no disk %s", name)
			}
			chosen = append(chosen, all[i])
		}
		return chosen, nil
	}
	for _, d := range all {
		if !writable || !d.ReadOnly {
			chosen = append(chosen, d)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no disk to work on")
	}
	return chosen, nil
}

// onAll runs f for all disks at once and returns the first failure, with the disk's name.
func onAll(disks []report.Disk, f func(report.Disk) error) error {
	errs := make(chan error, len(disks))
	for _, d := range disks {
		go func() {
			err := f(d)
			if err != nil {
				err = fmt.Errorf("%s: %w", d.Name, err)
			}
			errs <- err
		}()
	}
	var first error
	for range disks {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}
