package lab

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Main is TestMain for a package whose tests need a KVM that boots Linux guests:
//
//	func TestMain(m *testing.M) { lab.Main(m, nil, lab.Options{}) }
//
// Where bootsLinux (nil: KVMBootsLinux) says that this machine's can, or in a lab, it runs the tests. Elsewhere it runs this
// test binary again in one lab that serves the whole package, with the same flags, working directory and environment, passes
// its output on, and exits with its code. Profiles and coverage end up where they would. -test.timeout counts from the
// start in the lab. Where there can be no lab either, it calls Skip. Main does not return.
func Main(m *testing.M, bootsLinux func() bool, o Options) {
	if bootsLinux == nil {
		bootsLinux = KVMBootsLinux
	}
	if InLab() || bootsLinux() {
		os.Exit(m.Run())
	}
	flag.Parse()
	skipWithoutLab("these tests need a KVM that boots Linux")
	code, err := runTests(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// skipWithoutLab calls Skip where no lab can be made, or is wanted.
func skipWithoutLab(why string) {
	if testing.Short() {
		Skip(why + ", which -short leaves out")
	}
	if err := Available(); err != nil {
		Skip(why + ", and a lab can't be made either: " + err.Error())
	}
}

// bootAllowance is added to the tests' own timeout for the lab's boot.
const bootAllowance = 2 * time.Minute

// runTests runs this test binary again in a lab, with its own arguments and more.
func runTests(o Options, more ...string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return -1, err
	}
	if o.Deadline == 0 {
		o.Deadline = -1
		if t, ok := testFlag("timeout").(time.Duration); ok && t > 0 {
			o.Deadline = t + bootAllowance
		}
	}
	o.Shares = append(slices.Clone(o.Shares), outputFolders()...)
	o.ForwardSignals = true
	return Run(context.Background(), o, slices.Concat([]string{self}, os.Args[1:], more), os.Stdin, os.Stdout, os.Stderr)
}

// outputFolders are where the flags of this test run want files to be written.
func outputFolders() []string {
	base, _ := testFlag("outputdir").(string)
	var dirs []string
	for _, name := range []string{"coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace", "testlogfile"} {
		file, _ := testFlag(name).(string)
		if file == "" {
			continue
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(base, file)
		}
		dirs = append(dirs, filepath.Dir(file))
	}
	if dir, _ := testFlag("gocoverdir").(string); dir != "" {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// testFlag is the value of -test.<name>, nil if there is no such flag.
func testFlag(name string) any {
	if f := flag.Lookup("test." + name); f != nil {
		if g, ok := f.Value.(flag.Getter); ok {
			return g.Get()
		}
	}
	return nil
}

// KVMBootsLinux tells whether this machine has a /dev/kvm that can be opened and a processor whose virtualization
// extensions are visible. Software implementations of KVM have the first only, and can't boot a Linux kernel.
func KVMBootsLinux() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	i := bytes.Index(info, []byte("\nflags"))
	if i < 0 {
		return false
	}
	line, _, _ := bytes.Cut(info[i+1:], []byte("\n"))
	words := bytes.Fields(line)
	has := func(flag string) bool {
		return slices.ContainsFunc(words, func(w []byte) bool { return string(w) == flag })
	}
	if !has("vmx") && !has("svm") {
		return false
	}
	return HasKVM()
}

// HasKVM tells whether this machine has a /dev/kvm that can be opened, of whatever kind: enough for
// guests that are a few instructions.
func HasKVM() bool {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}
