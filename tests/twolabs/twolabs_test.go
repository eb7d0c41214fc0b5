// Package twolabs has a guest move between two labs: hosts with a kernel each, and so with page caches, clocks and
// tables of locks of their own. The images are on disks that both have, as of a storage network.
package twolabs

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/guest/pattern"
	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

var migrations = flag.Int("migrations", 2, "how often the guest moves")

const (
	size, epoch = 1 << 20, 4711 // of the workload
	port        = 4444
)

// A guest writes, reads back and flushes without a pause on a disk past the hosts' page caches and on
// one through them, and moves. Every read finds what was written last, wherever that was. A program
// on each host keeps what it has read of the second disk in the cache.
func TestMigrateBetweenTwoHosts(t *testing.T) {
	var files, drives []string
	for i := range 2 {
		file := filepath.Join(t.TempDir(), serial(i))
		if err := os.WriteFile(file, make([]byte, 2*size), 0o600); err != nil {
			t.Fatal(err)
		}
		files, drives = append(files, file), append(drives, lab.SharedDrive(file))
	}
	a, b, err := lab.Cable()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	deadline := 4*time.Minute + time.Duration(*migrations)*time.Minute
	first := newHost(t, "host A", "10.88.0.1", a, deadline, drives...)
	here := first.start(fmt.Sprintf("run --kernel %s --initrd %s --append 'console=ttyS0 quiet loglevel=5 panic=-1 ebb.run=ledger:size=%d:depth=4:epoch=%d' "+
		"--name web --memory 128M --disk path=/dev/vda,serial=%s,direct --disk path=/dev/vdb,serial=%s",
		image.Kernel.BzImage, image.Initrd, size, epoch, serial(0), serial(1)))
	// It boots later, so that its TSC and kvmclock are others.
	hosts := [2]*host{first, newHost(t, "host B", "10.88.0.2", b, deadline, drives...)}
	for _, h := range hosts {
		h.run("exec 9</dev/vdb && cat <&9 >/dev/null")
	}
	here.await("vda begins", "console")
	here.await("vdb begins", "console")
	for i, h := range hosts { // without NTP
		now := time.Now().Add(time.Duration(i) * clocksApart)
		h.run(fmt.Sprintf("date -s @%d.%09d", now.Unix(), now.Nanosecond()))
	}
	ahead := here.clock()
	for n := range *migrations {
		from, to := hosts[n%2], hosts[(n+1)%2]
		there := to.start(fmt.Sprintf("receive --listen tcp:%s:%d --insecure --disk-path vda=/dev/vda --disk-path vdb=/dev/vdb", to.address, port))
		there.await("waiting for a VM at ", "log")
		line := from.run(fmt.Sprintf("ebb migrate web tcp:%s:%d --insecure --allow-cached --downtime 5s --stall 5s --timeout 2m 2>progress || { tail progress; false; }", to.address, port))
		t.Logf("migration %d: %s", n, strings.TrimSpace(line))
		if !strings.Contains(line, "in flight at stop 0\n") {
			t.Errorf("migration %d: %s", n, line)
		}
		here.mustEnd(5)
		here = there
		here.progress()
		if now := here.clock(); now.most < ahead.least-clockError || now.least > ahead.most+clockError {
			t.Errorf("the guest's clock was ahead by %v to %v, and after migration %d is by %v to %v", ahead.least, ahead.most, n, now.least, now.most)
		}
	}
	here.types("")
	here.mustEnd(0)
	said := here.says("console")
	r := report.Parse(said)
	if r.Done == nil || !r.Done.OK {
		t.Fatalf("the guest found a fault, or did not come to its end\n%s\n%s", said, here.says("log"))
	}
	for i, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sum, err := pattern.SumOf(f, serial(i), epoch, 4096, size/4096)
		if err != nil {
			t.Errorf("on the storage: %v", err)
		}
		if name := fmt.Sprintf("vd%c", 'a'+i); r.LedgerSum(name) != fmt.Sprintf("%x", sum) {
			t.Errorf("%s has sum %x on the storage\n%s", name, sum, said)
		}
	}
}

func serial(i int) string { return fmt.Sprintf("serial-%d", i) }

// progress waits until the guest has done more on each of its disks, flushes too.
func (v *vm) progress() {
	v.t.Helper()
	figures := func() []control.DiskStats {
		var s control.Stats
		if err := json.Unmarshal([]byte(v.run("ebb stats web --json")), &s); err != nil {
			v.t.Fatal(err)
		}
		return s.Disks
	}
	before := figures()
	for deadline := time.Now().Add(time.Minute); ; {
		now, done := figures(), true
		for i, d := range now {
			b := before[i]
			done = done && d.Read.Requests >= b.Read.Requests+64 && d.Write.Requests >= b.Write.Requests+64 && d.Long.Requests > b.Long.Requests
		}
		if done {
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("the guest does not go on: %+v, and before %+v\n%s\n%s", now, before, v.says("console"), v.says("log"))
		}
	}
}

// offset is by how much the guest's clock is ahead of the test's: between least and most.
type offset struct{ least, most time.Duration }

var (
	testClock = time.Now()
	uptime    = regexp.MustCompile(`ledger: uptime ([0-9]+[.][0-9]{3})`)
)

// clocksApart is how far ahead the second host's clock is.
const clocksApart = 100 * time.Second

// clockError is by how much the clocks of the two hosts and the test's may come to differ.
const clockError = time.Second

// clock asks the guest for its uptime.
func (v *vm) clock() offset {
	v.t.Helper()
	answers := "$(grep -c 'ledger: uptime .*[.]...' " + v.dir + "/console)"
	v.run("answers=" + answers + " || true")
	before := time.Since(testClock)
	v.types("time?")
	v.run("while kill -0 $pid && [ " + answers + " = $answers ]; do sleep 0.1; done")
	past := time.Since(testClock)
	said := uptime.FindAllStringSubmatch(v.says("console"), -1)
	if len(said) == 0 {
		v.t.Fatalf("the guest does not say its uptime\n%s", v.says("console"))
	}
	seconds, err := strconv.ParseFloat(said[len(said)-1][1], 64)
	if err != nil {
		v.t.Fatal(err)
	}
	up := time.Duration(seconds * 1e9)
	return offset{up - past, up - before}
}
