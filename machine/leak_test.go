package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openFiles returns what every open file descriptor is.
func openFiles(t *testing.T) (files []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // not the directory itself, closed by now
			files = append(files, e.Name()+" "+name)
		}
	}
	return files
}

func wantFiles(t *testing.T, before []string, after string) {
	t.Helper()
	if now := openFiles(t); len(now) != len(before) {
		t.Fatalf("%d open files %s, %d before:\n%s\nbefore:\n%s", len(now), after, len(before), strings.Join(now, "\n"), strings.Join(before, "\n"))
	}
}

func diskImages(t testing.TB, n int) (disks []Disk) {
	t.Helper()
	for i := range n {
		id := string(rune('a' + i))
		path := filepath.Join(t.TempDir(), id)
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, Disk{ID: id, Path: path})
	}
	return disks
}

// finished runs a machine to its end and frees it.
func finished(t *testing.T, cfg Config, code ...[]byte) {
	t.Helper()
	r := prepare(t, cfg, code...)
	go func() {
		defer close(r.done)
		r.end, r.err = r.Run()
	}()
	r.wait()
	if err := r.Close(); err != nil || r.err != nil {
		t.Fatal(err, r.err)
	}
}

func TestManyMachinesLeaveNothing(t *testing.T) {
	disks := diskImages(t, 3)
	run := func() { finished(t, Config{CPUs: 2, Disks: disks}, puts("hi"), powerOff, spin) }
	run() // the runtime opens what it needs
	before := openFiles(t)
	for range 20 {
		run()
	}
	wantFiles(t, before, "after 20 machines")
}

// What Run can't make is an error that leaves nothing behind.
func TestFailuresOfRunLeaveNothing(t *testing.T) {
	big := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(big, make([]byte, guestMemory), 0o600); err != nil {
		t.Fatal(err)
	}
	finished(t, Config{}, powerOff, spin)
	for name, c := range map[string]struct {
		cfg   Config
		words string
	}{
		"initrd":       {Config{Initrd: big}, big},
		"command line": {Config{Cmdline: strings.Repeat("x", 1<<20)}, "command line"},
	} {
		t.Run(name, func(t *testing.T) {
			before := openFiles(t)
			if c.cfg.Disks == nil {
				c.cfg.Disks = diskImages(t, 1)
			}
			r := prepare(t, c.cfg, powerOff, spin)
			_, err := r.Run()
			if err == nil || strings.Count(err.Error(), c.words) != 1 || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one with %q", err, c.words)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			wantFiles(t, before, "after the failure")
		})
	}
}

// What New can know it says, and leaves nothing behind either.
func TestNewChecksTheDisksOptions(t *testing.T) {
	needKVM(t)
	disks := diskImages(t, 2)
	disks[1].Queues = -1
	before := openFiles(t)
	m, err := New(Config{Kernel: kernelFile(t, powerOff, spin), Memory: guestMemory, CPUs: 1, Disks: disks})
	if err == nil {
		m.Close()
	}
	if err == nil || strings.Count(err.Error(), "disk b: queues=-1") != 1 {
		t.Errorf("error %v, want one about disk b's queues", err)
	}
	wantFiles(t, before, "after the failure")
}

// Every file descriptor a machine takes may be refused: first the first, then
// the second, until none is. Each time there is an error, and nothing is left.
func TestEveryRefusedFileDescriptor(t *testing.T) {
	disks := diskImages(t, 2)
	cfg := Config{CPUs: 2, Memory: guestMemory, Disks: disks, Kernel: kernelFile(t, powerOff, spin)}
	finished(t, cfg, powerOff, spin)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) //nolint:errcheck // as it was
	before := openFiles(t)
	inNew, inRun := 0, 0
	for n := uint64(0); ; n++ {
		if n > limit.Cur {
			t.Fatal("it never succeeds")
		}
		few := limit
		few.Cur = n
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		end, made, err := tryMachine(cfg)
		if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); e != nil {
			t.Fatal(e)
		}
		wantFiles(t, before, "after a failure: "+errorText(err))
		switch {
		case err == nil && end != PoweredOff:
			t.Fatalf("the guest %v", end)
		case err == nil:
			if inNew == 0 || inRun == 0 {
				t.Errorf("%d failures of New and %d of Run: the limit had no effect", inNew, inRun)
			}
			return
		case made:
			inRun++
		default:
			inNew++
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return "none"
	}
	return err.Error()
}

// tryMachine makes and runs a machine, and says whether New succeeded.
func tryMachine(cfg Config) (end End, made bool, err error) {
	m, err := New(cfg)
	if err != nil {
		return 0, false, err
	}
	defer m.Close()
	end, err = m.Run()
	return end, true, err
}
