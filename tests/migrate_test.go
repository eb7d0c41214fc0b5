package tests

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration"
)

// A guest that is used moves, and who uses it sees nothing of it.
func TestMigrate(t *testing.T) {
	for _, c := range []struct {
		series, engine string
		cpus           int
	}{
		{"6.1", "uring", 2},
		{"6.12", "native", 1},
	} {
		t.Run(c.series+"-"+c.engine, func(t *testing.T) {
			src, dst := newHost(t), newHost(t)
			direct, buffered := makeImage(t, "direct", 16<<20), makeImage(t, "buffered", 16<<20)
			here := src.start(append(kernelArgs(c.series, "vmlinux", ""), "--name", "web", "--memory", "128M", "--cpus", fmt.Sprint(c.cpus), "--aio", c.engine,
				"--disk", "path="+direct+",direct", "--disk", "path="+buffered)...)
			here.expect(prompt)
			here.run("echo kept > /tmp/file; word=remembered; dmesg -c >/dev/null")
			here.run(watchUptime + " & watcher=$!; sleep 1000 & sleeper=$!")
			here.run("for d in a b; do yes written on vd$d | dd of=/dev/vd$d bs=64k count=4 iflag=fullblock conv=fsync; done 2>/dev/null")
			began := here.clock()

			there := dst.receive("--disk-dir", filepath.Dir(direct), "--disk-path", "vdb="+buffered)
			report := filepath.Join(t.TempDir(), "report")
			line := src.moves("web", there.address, "--report", report)
			there.passed(began)

			if !resultLine.MatchString(line) {
				t.Errorf("the result is %q", line)
			}
			checkReport(t, report)
			here.mustEnd(5)
			if list := src.vms(); len(list) != 0 {
				t.Errorf("at the source there still is %+v", list)
			}
			if list := dst.vms(); len(list) != 1 || list[0].Name != "web" || list[0].State != "running" || list[0].PID != there.cmd.Process.Pid {
				t.Errorf("at the destination there is %+v", list)
			}
			wantLocked(t, direct)
			wantLocked(t, buffered)

			if got := there.run("cat /tmp/file; echo $word"); got != "kept\nremembered\n" {
				t.Errorf("file and variable are %q", got)
			}
			if got := there.run("jobs | grep -c Running"); got != "2\n" {
				t.Errorf("%q jobs: %s", got, there.run("jobs"))
			}
			there.run("n=$(wc -l < /tmp/uptimes); until [ $(wc -l < /tmp/uptimes) -gt $((n + 3)) ]; do sleep 0.1; done")
			if got := there.run("kill $watcher $sleeper; grep back /tmp/uptimes"); got != "" {
				t.Errorf("the guest's clock: %s", got)
			}
			for _, d := range []string{"a", "b"} {
				same := there.run(fmt.Sprintf("yes written on vd%[1]s | head -c 262144 | md5sum; dd if=/dev/vd%[1]s bs=64k count=4 iflag=direct 2>/dev/null | md5sum", d))
				if sums := strings.Fields(same); len(sums) != 4 || sums[0] != sums[2] {
					t.Errorf("vd%s reads back as %q", d, same)
				}
				mustRead(there.ebb, fmt.Sprintf("dd if=/dev/zero of=/dev/vd%s bs=64k count=4 conv=fsync", d))
			}
			there.quiet()

			there.types("poweroff -f\n")
			there.mustEnd(0)
			wantFree(t, direct)
			wantFree(t, buffered)
		})
	}
}

var resultLine = regexp.MustCompile(`^migrated in [0-9.]+ s · downtime [0-9.]+ ms \(stop .* · last RAM .* · state .* · commit .* · resume .*\) · I/O held [0-9]+ ms · in flight at stop 0\n$`)

// watchUptime is a command that writes down the uptime again and again, and when it goes back.
const watchUptime = "(last=0; while read -r up idle < /proc/uptime; do up=${up%.*}${up#*.}; word=on; [ $up -ge $last ] || word=back; " +
	"echo $word $last $up >> /tmp/uptimes; last=$up; usleep 20000; done)"

// offset is by how much the guest's uptime is ahead of the test's clock: between least and most.
type offset struct{ least, most time.Duration }

// testClock is what offsets are measured against.
var testClock = time.Now()

// clock reads the guest's clock a few times: the reading that takes least time says most.
func (e *ebb) clock() offset {
	e.t.Helper()
	o := offset{math.MinInt64, math.MaxInt64}
	// The quotes keep the terminal's echo from looking like an answer.
	e.says("echo rea'dy'.; while read key && [ $key = t ]; do read up idle < /proc/uptime; echo up'time'=$up.; done\n", "ready")
	for range 20 {
		before := time.Since(testClock)
		text := e.says("t\n", "uptime=")
		past := time.Since(testClock)
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil {
			e.t.Fatalf("the uptime: %v\n%s", err, e.transcript())
		}
		up := time.Duration(seconds * 1e9)
		const unit = 10 * time.Millisecond // of /proc/uptime, which leaves out what is less
		o = offset{max(o.least, up-past), min(o.most, up+unit-before)}
	}
	e.types("enough\n")
	e.run("true")
	return o
}

// says types something into the guest's console and returns what then stands between mark and ".".
func (e *ebb) says(typed, mark string) (text string) {
	e.t.Helper()
	e.mu.Lock()
	from := e.stdout.Len()
	e.mu.Unlock()
	e.types(typed)
	if !e.await(func() (found bool) {
		_, text, _ = strings.Cut(e.stdout.String()[from:], mark)
		text, _, found = strings.Cut(text, ".\r")
		return found
	}) {
		e.t.Fatalf("the guest ended instead of saying %q\n%s", mark, e.transcript())
	}
	return text
}

// passed checks that for the guest as much time has passed as for the test, however long it stood.
func (e *ebb) passed(since offset) {
	e.t.Helper()
	const drift = 10 * time.Millisecond // between the two clocks, over half a minute
	if now := e.clock(); now.most < since.least-drift || now.least > since.most+drift {
		e.t.Errorf("the guest's clock was ahead by %v to %v, and now is by %v to %v", since.least, since.most, now.least, now.most)
	}
}

// types types into the guest's console.
func (e *ebb) types(text string) {
	e.t.Helper()
	if _, err := e.stdin.Write([]byte(text)); err != nil {
		e.t.Fatalf("typing %q: %v\n%s", text, err, e.transcript())
	}
}

var complaint = regexp.MustCompile(`(?i)soft lockup|hung|blocked for more|clocksource|\brcu|stall|i/o error|reset|unstable|call trace|warning`)

// quiet checks that the guest's kernel has nothing to complain about since its log was cleared.
func (e *ebb) quiet() {
	e.t.Helper()
	for line := range strings.Lines(e.run("dmesg")) {
		// "Long readout interval" says that the kernel had no processor for a second, and that this is no harm.
		if complaint.MatchString(line) && !strings.Contains(line, "Long readout interval") {
			e.t.Errorf("the guest's kernel says %s", line)
		}
	}
}

// checkReport checks that what was measured can be true.
func checkReport(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return
	}
	var r migration.Report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Errorf("%v\n%s", err, data)
		return
	}
	d := r.Downtime
	parts := d.Stop + d.Drain + d.LastRAM + d.State + d.Commit
	var phases []string
	for i, p := range r.Phases {
		phases = append(phases, p.Phase)
		if i > 0 && p.At < r.Phases[i-1].At {
			t.Errorf("phases begin at %v", r.Phases)
		}
		if p.Phase == "stop" && p.InFlight != 0 {
			t.Errorf("%d requests in flight at the stop", p.InFlight)
		}
	}
	last := len(phases) - 3
	if last < 0 || !slices.Equal(phases[:3], []string{"setup", "precopy", "ebb"}) || !slices.Equal(phases[last:], []string{"stop", "commit", "gone"}) {
		t.Errorf("phases are %v", phases)
	}
	if d.Total <= 0 || parts != d.Total || d.Resume > d.Commit || r.Held < d.Total || r.Held > r.Total {
		t.Errorf("downtime %+v, parts %v, held %v, total %v", d, parts, r.Held, r.Total)
	}
	if r.InFlight != 0 || r.Error != "" || len(r.Samples) == 0 || len(r.Passes) != r.Memory.Passes || r.Memory.Passes < 2 || r.Memory.Pages == 0 || r.Memory.Bytes == 0 {
		t.Errorf("in flight %d, error %q, %d samples, %d passes, memory %+v", r.InFlight, r.Error, len(r.Samples), len(r.Passes), r.Memory)
	}
	for _, s := range r.Samples {
		if len(s.Disks) != 2 || s.Disks[0].ID != "vda" || s.Disks[1].ID != "vdb" {
			t.Errorf("a sample has disks %+v", s.Disks)
			break
		}
	}
}
