// Package report is the language between a guest and the tests that watch its console: the guest's init prints lines
// that start with "ebb: ", and Parse finds them again among kernel messages and shell output.
//
//	ebb: userspace 0.812                    seconds since the kernel started, first thing in user space
//	ebb: kernel 6.1.0-56-cloud-amd64
//	ebb: cpus 2                             online
//	ebb: memory 511340544                   bytes, as /proc/meminfo has it
//	ebb: disk vda serial=data0 size=67108864 ro=0 block=512 queues=2
//	ebb: NAME ok                            a workload
//	ebb: NAME FAILED: reason
//	ebb: NAME: anything                     what a workload has to say
//	ebb: done ok                            all workloads; the guest powers off next
//	ebb: done FAILED: NAME
package report

import (
	"fmt"
	"strings"
)

// Prefix starts every line for the tests.
const Prefix = "ebb: "

// Disk is one virtio disk as the guest sees it.
type Disk struct {
	Name     string // vda
	Serial   string // may be empty
	Size     int64  // bytes
	ReadOnly bool
	Block    int // logical block size in bytes
	Queues   int // hardware queues of blk-mq
}

// String is the disk's line, without Prefix.
func (d Disk) String() string {
	ro := 0
	if d.ReadOnly {
		ro = 1
	}
	return fmt.Sprintf("disk %s serial=%s size=%d ro=%d block=%d queues=%d", d.Name, d.Serial, d.Size, ro, d.Block, d.Queues)
}

// Result is how a workload ended.
type Result struct {
	Name   string
	OK     bool
	Reason string // why not
}

// Report is what a guest printed, of its last boot.
type Report struct {
	Boots     int     // how often user space was reached
	Userspace float64 // seconds since the kernel started
	Kernel    string
	CPUs      int
	Memory    int64 // bytes
	Disks     []Disk
	Results   []Result            // of workloads, in order; without the last line
	Notes     map[string][]string // what each workload printed besides, by its name
	Done      *Result             // nil: the guest did not come to the end; Name is "done"
}

// Err is nil if the guest came to its end and all workloads succeeded, else says which failed and why.
func (r Report) Err() error {
	for _, x := range r.Results {
		if !x.OK {
			return fmt.Errorf("workload %s failed in the guest: %s", x.Name, x.Reason)
		}
	}
	switch {
	case r.Boots == 0:
		return fmt.Errorf("the guest did not reach user space")
	case r.Done == nil:
		return fmt.Errorf("the guest did not come to its end")
	case !r.Done.OK:
		return fmt.Errorf("the guest failed: %s", r.Done.Reason)
	}
	return nil
}

// LedgerSum is the sum of what a disk holds, as workload ledger says when it ends; empty if it doesn't.
func (r Report) LedgerSum(disk string) string {
	for _, note := range r.Notes["ledger"] {
		if text, ok := strings.CutPrefix(note, disk+" "); ok {
			if _, sum, ok := strings.Cut(text, " sum="); ok {
				return sum
			}
		}
	}
	return ""
}

// Parse reads console output. It ignores lines it does not know.
func Parse(console string) Report {
	var r Report
	for line := range strings.Lines(console) {
		text, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), Prefix)
		if ok {
			r.add(text)
		}
	}
	return r
}

func (r *Report) add(text string) {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "userspace":
		*r = Report{Boots: r.Boots + 1}
		fmt.Sscan(rest, &r.Userspace)
		return
	case "kernel":
		r.Kernel = rest
		return
	case "cpus":
		fmt.Sscan(rest, &r.CPUs)
		return
	case "memory":
		fmt.Sscan(rest, &r.Memory)
		return
	case "disk":
		r.Disks = append(r.Disks, parseDisk(rest))
		return
	}
	status, reason, _ := strings.Cut(rest, ": ")
	name, isNote := strings.CutSuffix(word, ":")
	switch {
	case isNote:
		if r.Notes == nil {
			r.Notes = map[string][]string{}
		}
		r.Notes[name] = append(r.Notes[name], rest)
	case status == "ok" || status == "FAILED":
		x := Result{Name: name, OK: status == "ok", Reason: reason}
		if name == "done" {
			r.Done = &x
		} else {
			r.Results = append(r.Results, x)
		}
	}
}

// parseDisk reads what follows "disk ".
func parseDisk(text string) Disk {
	name, rest, _ := strings.Cut(text, " ")
	d := Disk{Name: name}
	for field := range strings.FieldsSeq(rest) {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "serial":
			d.Serial = value
		case "size":
			fmt.Sscan(value, &d.Size)
		case "ro":
			d.ReadOnly = value == "1"
		case "block":
			fmt.Sscan(value, &d.Block)
		case "queues":
			fmt.Sscan(value, &d.Queues)
		}
	}
	return d
}
