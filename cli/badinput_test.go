package cli

import (
	"fmt"
	"hash/maphash"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/machine/boot/boottest"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// world is a directory with everything a command line here may name.
func world(t *testing.T) string {
	t.Helper()
	dir := publicDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	sparse := func(name string, size int64) {
		noError(t, os.WriteFile(at(name), nil, 0o644))
		noError(t, os.Truncate(at(name), size))
	}
	good, err := os.ReadFile(kernel(t, dir, obedient()))
	noError(t, err)
	bz := boottest.BzImage{Payload: make([]byte, 4096)}.Bytes()
	for name, text := range map[string][]byte{
		"empty": nil, "text": []byte("this is no kernel, and no image either\n"),
		"short.elf": good[:len(good)-10], "header.elf": good[:32],
		"short.bz": bz[:len(bz)-100], "header.bz": bz[:0x210],
		"console":      []byte("of the last time"),
		"unknown.conf": []byte("memory 16M\ncolour blue\n"), "nested.conf": []byte("config other\n"), "help.conf": []byte("help\n"),
		"twice.conf": []byte("# ok\n\ncpus 1\ncpus=2\n"), "novalue.conf": []byte("kernel\n"), "switch.conf": []byte("no-reboot maybe\n"),
		"odd.conf": []byte("--memory 17M\n"), "garbage.conf": []byte("memory 16M\n?!\n"), "binary.conf": {0xff, 0xfe, 0},
	} {
		noError(t, os.WriteFile(at(name), text, 0o644))
	}
	sparse("a.img", 1<<20)
	sparse("b.img", 1<<20)
	sparse("odd.img", 1000)
	sparse("big.initrd", 20<<20)
	noError(t, os.WriteFile(at("protected.img"), make([]byte, 4096), 0o444))
	noError(t, os.WriteFile(at("qcow2.img"), append([]byte("QFI\xfb"), make([]byte, 4092)...), 0o644))
	noError(t, os.WriteFile(at("others.img"), make([]byte, 4096), 0o644))
	noError(t, os.WriteFile(at("secret"), good, 0o600))
	noError(t, os.Mkdir(at("dir"), 0o755))
	noError(t, unix.Mkfifo(at("fifo"), 0o644))
	noError(t, os.Symlink("a.img", at("link.img")))
	noError(t, os.Link(at("a.img"), at("hard.img")))
	noError(t, os.Symlink("gone", at("dangling")))
	return dir
}

var contents = maphash.MakeSeed()

// snapshot describes every file below dir.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	noError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			files[path] = info.Mode().String()
			return nil
		}
		files[path] = fmt.Sprintf("%v, %d bytes, %v", info.Mode(), info.Size(), info.ModTime())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[path] += fmt.Sprintf(", %x", maphash.Bytes(contents, text))
		}
		return nil
	}))
	return files
}

func noLocks(t *testing.T, runtime string) {
	t.Helper()
	for path := range snapshot(t, runtime) {
		if path != runtime && path != filepath.Join(runtime, "ebb") {
			t.Errorf("%s was left", path)
		}
	}
}

// noise is what of Go and of package boundaries must not come through.
var noise = regexp.MustCompile(`\b(open|stat|lstat|mkdir|fcntl|ioctl|flock|mmap|[^-]disk) [/\w.-]+: |\b(aio|blk|boot|kvm|memory|virtio|strconv): |: :|%!|goroutine|panic|flag provided|parse error|syntax error|<nil>|\berrno\b`)

// wantComplaint checks that stderr is one sentence with all of parts, and an
// advice: what comes behind the last semicolon or colon.
func (p *process) wantComplaint(parts ...string) {
	p.t.Helper()
	said := p.stderr.String()
	if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "ebb: ") || !strings.HasSuffix(said, "\n") || strings.HasSuffix(said, ".\n") {
		p.t.Errorf("stderr is not one line of ebb's: %q", said)
	}
	if found := noise.FindString(said); found != "" {
		p.t.Errorf("noise %q in %q", found, said)
	}
	for _, part := range parts {
		if !strings.Contains(said, part) {
			p.t.Errorf("%q is missing in %q", part, said)
		}
	}
	words := strings.FieldsFunc(strings.TrimPrefix(said, "ebb: "), func(r rune) bool { return r == ';' || r == ':' })
	if len(words) < 2 || !advice.MatchString(words[len(words)-1]) && !advice.MatchString(said) {
		p.t.Errorf("no advice in %q", said)
	}
	if p.stdout.String() != "" {
		p.t.Errorf("stdout is %q", p.stdout.String())
	}
}

var advice = regexp.MustCompile("[;:,] (use|give|write|set|load|run|stop|choose|add|check|leave|shorten|is it|`ebb|join|attach|unmount)\\b|[;:] `ebb|give .* more --memory")

// run is the start of most command lines: a good kernel.
var run16 = []string{"run", "--memory", "16M", "--kernel", "kernel"}

func with(args ...string) []string { return append(slices.Clone(run16), args...) }

func TestBadInput(t *testing.T) {
	long := strings.Repeat("x", 70)
	for _, c := range []struct {
		name  string
		args  []string
		exit  int
		parts []string
		steps string
		kvm   bool // found only after /dev/kvm was opened
	}{
		// Command line.
		{name: "unknown command", args: []string{"boot"}, exit: 2, parts: []string{`"boot"`, "`ebb help`"}},
		{name: "help for nothing", args: []string{"help", "boot"}, exit: 2, parts: []string{"`ebb help`"}},
		{name: "unknown option before", args: []string{"--colour", "run"}, exit: 2, parts: []string{"--colour", "`ebb --help`"}},
		{name: "unknown option", args: with("--colour", "blue"), exit: 2, parts: []string{"--colour", "`ebb run --help`"}},
		{name: "unknown option of check", args: []string{"check", "--fast"}, exit: 2, parts: []string{"--fast", "`ebb check --help`"}},
		{name: "three dashes", args: with("---cpus", "1"), exit: 2, parts: []string{"---cpus", "`ebb run --help`"}},
		{name: "stray argument", args: with("vmlinuz"), exit: 2, parts: []string{`"vmlinuz"`, "write options with --"}},
		{name: "stray argument between", args: []string{"run", "vmlinuz", "--cpus", "1"}, exit: 2, parts: []string{`"vmlinuz"`}},
		{name: "stray argument of receive", args: []string{"receive", "--listen", "tcp:127.0.0.1:0", "web"}, exit: 2, parts: []string{`"web"`, "write options with --"}},
		{name: "stray argument of check", args: []string{"check", "kvm"}, exit: 2, parts: []string{`"kvm"`}},
		{name: "no value", args: with("--initrd"), exit: 2, parts: []string{"--initrd needs a value"}},
		{name: "empty value", args: with("--initrd", ""), exit: 2, parts: []string{"--initrd needs a value"}},
		{name: "empty name", args: with("--name="), exit: 2, parts: []string{"--name needs a value"}},
		{name: "switch with garbage", args: with("--no-reboot=maybe"), exit: 2, parts: []string{"--no-reboot=maybe"}},

		// Kernel.
		{name: "no kernel", args: []string{"run"}, exit: 2, parts: []string{"--kernel is missing"}},
		{name: "kernel missing", args: []string{"run", "--kernel", "nowhere/vmlinuz"}, exit: 1, parts: []string{"--kernel nowhere/vmlinuz", "no such file"}},
		{name: "kernel empty", args: []string{"run", "--kernel", "empty"}, exit: 1, parts: []string{"--kernel empty is empty"}},
		{name: "kernel not one", args: []string{"run", "--kernel", "text"}, exit: 1, parts: []string{"--kernel text", "not a kernel"}},
		{name: "kernel a disk image", args: []string{"run", "--kernel", "a.img"}, exit: 1, parts: []string{"--kernel a.img", "not a kernel"}},
		{name: "kernel a directory", args: []string{"run", "--kernel", "dir"}, exit: 1, parts: []string{"--kernel dir", "directory"}},
		{name: "kernel a fifo", args: []string{"run", "--kernel", "fifo"}, exit: 1, parts: []string{"--kernel fifo", "not a regular file"}},
		{name: "kernel a device", args: []string{"run", "--kernel", "/dev/zero"}, exit: 1, parts: []string{"--kernel /dev/zero", "not a regular file"}},
		{name: "kernel unreadable", args: []string{"run", "--kernel", "secret"}, exit: 1, steps: "nobody", parts: []string{"--kernel secret", "permission denied"}},
		{name: "ELF truncated", args: []string{"run", "--kernel", "short.elf"}, exit: 1, parts: []string{"--kernel short.elf", "truncated"}},
		{name: "ELF header truncated", args: []string{"run", "--kernel", "header.elf"}, exit: 1, parts: []string{"--kernel header.elf"}},
		{name: "bzImage truncated", args: []string{"run", "--kernel", "short.bz"}, exit: 1, parts: []string{"--kernel short.bz", "truncated"}},
		{name: "bzImage header truncated", args: []string{"run", "--kernel", "header.bz"}, exit: 1, parts: []string{"--kernel header.bz", "truncated"}},
		{name: "append too long", args: with("--append", strings.Repeat("x", 1<<16)), exit: 1, kvm: true, parts: []string{"65536 bytes", "--append"}},

		// Initrd.
		{name: "initrd missing", args: with("--initrd", "nowhere"), exit: 1, parts: []string{"--initrd nowhere", "no such file"}},
		{name: "initrd empty", args: with("--initrd", "empty"), exit: 1, parts: []string{"--initrd empty is empty"}},
		{name: "initrd a directory", args: with("--initrd", "dir"), exit: 1, parts: []string{"--initrd dir", "directory"}},
		{name: "initrd unreadable", args: with("--initrd", "secret"), exit: 1, steps: "nobody", parts: []string{"--initrd secret", "permission denied"}},
		{name: "initrd too big", args: with("--initrd", "big.initrd"), exit: 1, kvm: true, parts: []string{"initrd big.initrd", "20 MiB", "--memory"}},
		{name: "initrd too big, console to a new file", args: with("--initrd", "big.initrd", "--console", "file:new"), exit: 1, kvm: true, parts: []string{"big.initrd"}},
		{name: "initrd too big, console to an old file", args: with("--initrd", "big.initrd", "--console", "file:console"), exit: 1, kvm: true, parts: []string{"big.initrd"}},

		// Memory and vCPUs.
		{name: "memory too small", args: with("--memory", "14M"), exit: 2, parts: []string{"--memory 14M", "16M"}},
		{name: "memory too big", args: with("--memory", "2T"), exit: 2, parts: []string{"--memory 2T", "1024G"}},
		{name: "memory beyond 64 bits", args: with("--memory", "99999999999999T"), exit: 2, parts: []string{"--memory 99999999999999T"}},
		{name: "memory garbage", args: with("--memory", "much"), exit: 2, parts: []string{"--memory much", "512M"}},
		{name: "memory empty", args: with("--memory", ""), exit: 2, parts: []string{"--memory needs a value"}},
		{name: "memory negative", args: with("--memory", "-512M"), exit: 2, parts: []string{"--memory -512M"}},
		{name: "memory without a unit", args: with("--memory", "512"), exit: 2, parts: []string{"--memory 512", "512 bytes", "unit"}},
		{name: "memory odd", args: with("--memory", "513M"), exit: 2, parts: []string{"--memory 513M", "514M"}},
		{name: "no vCPU", args: with("--cpus", "0"), exit: 2, parts: []string{"--cpus 0", "1 to 254"}},
		{name: "negative vCPUs", args: with("--cpus=-1"), exit: 2, parts: []string{"--cpus -1"}},
		{name: "1000 vCPUs", args: with("--cpus", "1000"), exit: 2, parts: []string{"--cpus 1000", "1 to 254"}},
		{name: "vCPUs garbage", args: with("--cpus", "two"), exit: 2, parts: []string{"--cpus two"}},
		{name: "vCPUs beyond 64 bits", args: with("--cpus", "99999999999999999999"), exit: 2, parts: []string{"--cpus 99999999999999999999"}},

		// Disks: their keys.
		{name: "disk without keys", args: with("--disk", "a.img"), exit: 2, parts: []string{"--disk a.img", "path=FILE"}},
		{name: "disk empty", args: with("--disk", ""), exit: 2, parts: []string{"--disk", "path=FILE"}},
		{name: "disk without path", args: with("--disk", "readonly"), exit: 2, parts: []string{"--disk readonly", "path=FILE"}},
		{name: "disk path empty", args: with("--disk", "path="), exit: 2, parts: []string{"--disk path=", "path=VALUE"}},
		{name: "disk unknown key", args: with("--disk", "path=a.img,cache=none"), exit: 2, parts: []string{"--disk path=a.img,cache=none", `"cache"`}},
		{name: "disk key twice", args: with("--disk", "path=a.img,path=b.img"), exit: 2, parts: []string{"--disk path=a.img,path=b.img", "path is given twice"}},
		{name: "disk switch garbage", args: with("--disk", "path=a.img,readonly=perhaps"), exit: 2, parts: []string{"readonly=perhaps", "readonly=on"}},
		{name: "disk serial too long", args: with("--disk", "path=a.img,serial=123456789012345678901"), exit: 2, parts: []string{"serial=123456789012345678901", "20"}},
		{name: "disk serial empty", args: with("--disk", "path=a.img,serial="), exit: 2, parts: []string{"serial=VALUE"}},
		{name: "disk id bad", args: with("--disk", "path=a.img,id=a/b"), exit: 2, parts: []string{"id=a/b"}},
		{name: "disk no queues", args: with("--disk", "path=a.img,queues=0"), exit: 2, parts: []string{"queues=0", "from 1"}},
		{name: "disk queues garbage", args: with("--disk", "path=a.img,queues=all"), exit: 2, parts: []string{"queues=all"}},
		{name: "disk too many queues", args: with("--disk", "path=a.img,queues=1000"), exit: 2, parts: []string{"queues=1000"}},
		{name: "disk queue size odd", args: with("--disk", "path=a.img,queue-size=100"), exit: 2, parts: []string{"queue-size=100", "power of two"}},
		{name: "disk queue size small", args: with("--disk", "path=a.img,queue-size=2"), exit: 2, parts: []string{"queue-size=2", "4 to 1024"}},
		{name: "disk queue size big", args: with("--disk", "path=a.img,queue-size=2048"), exit: 2, parts: []string{"queue-size=2048", "4 to 1024"}},
		{name: "disk iops zero", args: with("--disk", "path=a.img,iops=0"), exit: 2, parts: []string{"iops", "iops=0"}},
		{name: "disk iops garbage", args: with("--disk", "path=a.img,iops=fast"), exit: 2, parts: []string{"iops", "iops=fast"}},
		{name: "disk iops negative", args: with("--disk", "path=a.img,iops=-1"), exit: 2, parts: []string{"iops", "iops=-1"}},
		{name: "disk iops burst zero", args: with("--disk", "path=a.img,iops=10:0"), exit: 2, parts: []string{"iops", "iops=10:0"}},
		{name: "disk iops burst garbage", args: with("--disk", "path=a.img,iops=10:"), exit: 2, parts: []string{"iops", "iops=10:"}},
		{name: "disk iops with a unit", args: with("--disk", "path=a.img,iops=10M"), exit: 2, parts: []string{"iops", "iops=10M"}},
		{name: "disk iops beyond all", args: with("--disk", "path=a.img,iops=99999999999999999999"), exit: 2, parts: []string{"iops", "iops=9999"}},
		{name: "disk iops too many", args: with("--disk", "path=a.img,iops=9999999999999999"), exit: 2, parts: []string{"iops", "iops=9999999999999999"}},
		{name: "disk bps zero", args: with("--disk", "path=a.img,bps=0"), exit: 2, parts: []string{"bps", "bps=0"}},
		{name: "disk bps garbage", args: with("--disk", "path=a.img,bps=x"), exit: 2, parts: []string{"bps", "bps=x"}},
		{name: "disk bps burst without rate", args: with("--disk", "path=a.img,bps=:5M"), exit: 2, parts: []string{"bps", "bps=:5M"}},
		{name: "disk group bad", args: with("--disk", "path=a.img,group=a/b"), exit: 2, parts: []string{"group", "group=a/b"}},
		{name: "disk weight zero", args: with("--disk", "path=a.img,weight=0"), exit: 2, parts: []string{"weight", "weight=0"}},
		{name: "disk weight big", args: with("--disk", "path=a.img,weight=1001"), exit: 2, parts: []string{"weight", "1 to 1000"}},
		{name: "disk error policy", args: with("--disk", "path=a.img,error=ignore"), exit: 2, parts: []string{"error", "report or stop"}},
		{name: "disk format", args: with("--disk", "path=a.img,format=qcow2"), exit: 2, parts: []string{"format=qcow2", "qemu-img convert -O raw"}},
		{name: "disk group without limits", args: with("--disk", "path=a.img,group=g"), exit: 1, parts: []string{"vda", "group=g", "iops= or bps="}},
		{name: "disk group with two limits", args: with("--disk", "path=a.img,group=g,iops=5", "--disk", "path=b.img,group=g,iops=6"), exit: 1, parts: []string{"vdb", "group=g", "other limits"}},
		{name: "disk id twice", args: with("--disk", "path=a.img,id=root", "--disk", "path=b.img,id=root"), exit: 2, parts: []string{"--disk path=b.img,id=root", "id root"}},
		{name: "disk id of another's place", args: with("--disk", "path=a.img,id=vdb", "--disk", "path=b.img"), exit: 2, parts: []string{"--disk path=b.img", "id vdb"}},
		{name: "65 disks", args: with(slices.Repeat([]string{"--disk", "path=a.img,readonly"}, 65)...), exit: 2, parts: []string{"--disk", "65", "64"}},

		// Disks: their images.
		{name: "disk missing", args: with("--disk", "path=nowhere.img"), exit: 1, parts: []string{"--disk vda", "nowhere.img does not exist"}},
		{name: "second disk missing", args: with("--disk", "path=a.img", "--disk", "path=nowhere.img,id=data"), exit: 1, parts: []string{"--disk data", "nowhere.img"}},
		{name: "disk dangling", args: with("--disk", "path=dangling"), exit: 1, parts: []string{"--disk vda", "dangling does not exist"}},
		{name: "disk a directory", args: with("--disk", "path=dir"), exit: 1, parts: []string{"--disk vda", "dir is a directory"}},
		{name: "disk a fifo", args: with("--disk", "path=fifo"), exit: 1, parts: []string{"--disk vda", "fifo is a fifo"}},
		{name: "disk a character device", args: with("--disk", "path=/dev/zero"), exit: 1, parts: []string{"--disk vda", "/dev/zero is a character device"}},
		{name: "disk of 0 bytes", args: with("--disk", "path=empty"), exit: 1, parts: []string{"--disk vda", "empty is empty", "truncate"}},
		{name: "disk of odd size", args: with("--disk", "path=odd.img"), exit: 1, parts: []string{"--disk vda", "odd.img has 1000 bytes", "512"}},
		{name: "disk of another format", args: with("--disk", "path=qcow2.img"), exit: 1, parts: []string{"--disk vda", "qcow2.img begins as a qcow2 image", "format=raw"}},
		{name: "disk twice", args: with("--disk", "path=a.img", "--disk", "path=a.img"), exit: 1, parts: []string{"--disk vdb", "a.img is in use"}},
		{name: "disk twice by symbolic link", args: with("--disk", "path=a.img", "--disk", "path=link.img"), exit: 1, parts: []string{"--disk vdb", "link.img is in use"}},
		{name: "disk twice by hard link", args: with("--disk", "path=a.img", "--disk", "path=hard.img"), exit: 1, parts: []string{"--disk vdb", "hard.img is in use"}},
		{name: "disk twice, second read-only", args: with("--disk", "path=a.img", "--disk", "path=a.img,readonly"), exit: 1, parts: []string{"--disk vdb", "a.img is in use"}},
		{name: "disk twice, first read-only", args: with("--disk", "path=a.img,readonly", "--disk", "path=a.img"), exit: 1, parts: []string{"--disk vdb", "a.img is in use"}},
		{name: "disk write-protected", args: with("--disk", "path=protected.img"), exit: 1, parts: []string{"--disk vda", "protected.img is write-protected", "readonly"}},
		{name: "disk of another user", args: with("--disk", "path=others.img"), exit: 1, steps: "nobody", parts: []string{"--disk vda", "others.img", "permission denied", "readonly"}},
		{name: "disk unreadable", args: with("--disk", "path=secret,readonly"), exit: 1, steps: "nobody", parts: []string{"--disk vda", "secret", "permission denied"}},

		// The rest.
		{name: "too many slots", args: with("--hotplug-slots", "9"), exit: 2, parts: []string{"--hotplug-slots 9", "0 to 8"}},
		{name: "no requests", args: with("--aio-max", "0"), exit: 2, parts: []string{"--aio-max 0", "1 to 32768"}},
		{name: "engine", args: with("--aio", "posix"), exit: 2, parts: []string{"--aio posix", "uring, native or threads"}},
		{name: "console garbage", args: with("--console", "window"), exit: 2, parts: []string{"--console window", "stdio, none or file:FILE"}},
		{name: "console file without name", args: with("--console", "file:"), exit: 2, parts: []string{"--console file:", "file:FILE"}},
		{name: "console into a missing directory", args: with("--console", "file:nowhere/log"), exit: 1, kvm: true, parts: []string{"--console file:nowhere/log", "no such file"}},
		{name: "console to a directory", args: with("--console", "file:dir"), exit: 1, kvm: true, parts: []string{"--console file:dir", "directory"}},
		{name: "console to a fifo nobody reads", args: with("--console", "file:fifo"), exit: 1, kvm: true, parts: []string{"--console file:fifo"}},
		{name: "console to a disk", args: with("--disk", "path=a.img", "--console", "file:link.img"), exit: 2, kvm: true, parts: []string{"--console file:link.img", "--disk vda"}},
		{name: "console to the kernel", args: with("--console", "file:kernel"), exit: 2, kvm: true, parts: []string{"--console file:kernel", "--kernel"}},
		{name: "control empty", args: with("--control", ""), exit: 2, parts: []string{"--control"}},
		{name: "control a file", args: with("--control", "text"), exit: 1, parts: []string{"--control text", "no socket"}},
		{name: "control a symbolic link", args: with("--control", "link.img"), exit: 1, parts: []string{"--control link.img", "no socket"}},
		{name: "control in a missing directory", args: with("--control", "nowhere/s"), exit: 1, parts: []string{"--control nowhere/s", "no such file"}},
		{name: "control of another user", args: with("--control", "sock"), exit: 1, steps: "nobody", parts: []string{"--control sock", "permission denied"}},
		{name: "control, then a bad kernel", args: []string{"run", "--kernel", "text", "--control", "sock"}, exit: 1, parts: []string{"--kernel text"}},
		{name: "name empty", args: with("--name", ""), exit: 2, parts: []string{"--name"}},
		{name: "name a path", args: with("--name", "../web"), exit: 2, parts: []string{`--name "../web"`, "letters"}},
		{name: "name too long", args: with("--name", long), exit: 2, parts: []string{"--name", "64"}},

		// Configuration files.
		{name: "config missing", args: with("--config", "nowhere"), exit: 1, parts: []string{"--config nowhere", "no such file"}},
		{name: "config a directory", args: with("--config", "dir"), exit: 1, parts: []string{"--config dir", "directory"}},
		{name: "config unreadable", args: with("--config", "secret"), exit: 1, steps: "nobody", parts: []string{"--config secret", "permission denied"}},
		{name: "config binary", args: with("--config", "binary.conf"), exit: 1, parts: []string{"--config binary.conf", "text"}},
		{name: "config too long", args: with("--config", "big.initrd"), exit: 1, parts: []string{"--config big.initrd", "longer"}},
		{name: "config unknown option", args: with("--config", "unknown.conf"), exit: 2, parts: []string{"--config unknown.conf, line 2", "colour"}},
		{name: "config nested", args: with("--config", "nested.conf"), exit: 2, parts: []string{"--config nested.conf, line 1"}},
		{name: "config help", args: with("--config", "help.conf"), exit: 2, parts: []string{"--config help.conf, line 1"}},
		{name: "config option twice", args: with("--config", "twice.conf"), exit: 2, parts: []string{"--config twice.conf, line 4", "cpus"}},
		{name: "config without value", args: with("--config", "novalue.conf"), exit: 2, parts: []string{"--config novalue.conf, line 1", "kernel VALUE"}},
		{name: "config switch with garbage", args: with("--config", "switch.conf"), exit: 2, parts: []string{"--config switch.conf, line 1", "no-reboot"}},
		{name: "config garbage", args: with("--config", "garbage.conf"), exit: 2, parts: []string{"--config garbage.conf, line 2"}},
		{name: "config value bad", args: []string{"run", "--kernel", "kernel", "--config", "odd.conf"}, exit: 2, parts: []string{"--memory 17M"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kvm {
				lab.NeedKVM(t)
			}
			dir := world(t)
			runtime := publicDir(t)
			noError(t, os.Chmod(runtime, 0o777))
			before := snapshot(t, dir)
			p := setup{dir: dir, runtime: runtime, steps: c.steps}.start(t, c.args...)
			p.wantExit(c.exit)
			p.wantComplaint(c.parts...)
			if after := snapshot(t, dir); !maps.Equal(before, after) {
				t.Errorf("files were changed:\nbefore %v\nafter  %v", before, after)
			}
			noLocks(t, runtime)
		})
	}
}

// Images that another process has.
func TestImageInUse(t *testing.T) {
	for _, c := range []struct {
		name, theirs, ours string
		theirsReadOnly     bool
	}{
		{name: "both write", theirs: "a.img", ours: "path=a.img"},
		{name: "we read", theirs: "a.img", ours: "path=a.img,readonly"},
		{name: "they read", theirs: "a.img", ours: "path=a.img", theirsReadOnly: true},
		{name: "symbolic link", theirs: "a.img", ours: "path=link.img"},
		{name: "hard link", theirs: "hard.img", ours: "path=a.img"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := world(t)
			held, err := blk.OpenImage(filepath.Join(dir, c.theirs), blk.ImageOptions{ReadOnly: c.theirsReadOnly})
			noError(t, err)
			defer held.Close()
			before := snapshot(t, dir)
			p := setup{dir: dir}.start(t, with("--disk", c.ours)...)
			p.wantExit(1)
			p.wantComplaint("--disk vda", "is in use", "another process")
			if !maps.Equal(before, snapshot(t, dir)) {
				t.Error("files were changed")
			}
		})
	}
}

// Hosts on which nothing can run.
func TestBadHost(t *testing.T) {
	for _, c := range []struct {
		name, steps string
		mounts, kvm bool
		args        []string
		parts       []string
	}{
		{name: "no /dev/kvm", steps: "empty-dev", mounts: true, parts: []string{"/dev/kvm does not exist", "kvm_intel"}},
		{name: "/dev/kvm forbidden", steps: "empty-dev file-as-kvm nobody", mounts: true, parts: []string{"/dev/kvm may not be opened", "group"}},
		{name: "/dev/kvm something else", steps: "empty-dev file-as-kvm", mounts: true, parts: []string{"/dev/kvm is not KVM"}},
		{name: "read-only mount", steps: "read-only-mount=DIR", mounts: true, args: []string{"--disk", "path=a.img"}, parts: []string{"--disk vda", "a.img", "read-only file system", "readonly"}},
		{name: "Linux AIO refused", steps: "no-aio", kvm: true, args: []string{"--aio", "native"}, parts: []string{"--aio native", "io_setup is refused", "seccomp"}},
		{name: "runtime directory read-only", steps: "read-only-mount=RUNTIME", mounts: true, args: []string{"--name", "web"}, parts: []string{"--name web", "read-only file system", "XDG_RUNTIME_DIR"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kvm {
				lab.NeedKVM(t)
			}
			dir, runtime := world(t), publicDir(t)
			noError(t, os.Chmod(runtime, 0o777))
			before := snapshot(t, dir)
			steps := strings.NewReplacer("DIR", dir, "RUNTIME", runtime).Replace(c.steps)
			p := setup{dir: dir, runtime: runtime, steps: steps, mounts: c.mounts}.start(t, with(append(c.args, "--console", "file:new")...)...)
			p.wantExit(1)
			p.wantComplaint(c.parts...)
			if !maps.Equal(before, snapshot(t, dir)) {
				t.Error("files were changed")
			}
			noLocks(t, runtime)
		})
	}
}
