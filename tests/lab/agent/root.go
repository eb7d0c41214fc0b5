package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/early"
	"github.com/ebb-vmm/ebb/tests/lab/wire"
)

// enterRoot makes the machine's file system the root: mounted read-only, below an overlay whose upper layer is the
// scratch drive (real ext4, so that O_DIRECT, locks, fsync and holes are the real thing) or, without one, a tmpfs.
func enterRoot(c wire.Command, release string) error {
	const lower, scratch, root = "/lower", "/scratch", "/root"
	upper := early.Mount{Source: "tmpfs", Target: scratch, Type: "tmpfs"}
	if disk := scratchDisk(); disk != "" {
		upper = early.Mount{Source: disk, Target: scratch, Type: "ext4", Data: "noinit_itable"}
	}
	err := early.MountAll([]early.Mount{
		{Source: wire.RootTag, Target: lower, Type: "virtiofs", Flags: unix.MS_RDONLY},
		upper,
	})
	if err != nil {
		return err
	}
	for _, dir := range []string{scratch + "/upper", scratch + "/work"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	mounts := []early.Mount{{
		Source: "lab", Target: root, Type: "overlay",
		Data: fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, scratch, scratch),
	}}
	for _, m := range early.Basic {
		m.Target = root + m.Target
		mounts = append(mounts, m)
	}
	mounts = append(mounts, []early.Mount{
		{Source: "devpts", Target: root + "/dev/pts", Type: "devpts", Data: "mode=620,ptmxmode=666"},
		{Source: "tmpfs", Target: root + "/dev/shm", Type: "tmpfs", Data: "mode=1777"},
		{Source: "tmpfs", Target: root + "/run", Type: "tmpfs", Data: "mode=755"},
		{Source: "cgroup2", Target: root + "/sys/fs/cgroup", Type: "cgroup2"},
		{Source: "debugfs", Target: root + "/sys/kernel/debug", Type: "debugfs"}, // KVM's counters
	}...)
	for i, dir := range c.Shares {
		mounts = append(mounts, early.Mount{Source: wire.ShareTag(i), Target: root + dir, Type: "virtiofs"})
	}
	if c.Modules != "" { // so that modprobe finds the lab kernel's own
		mounts = append(mounts, early.Mount{Source: lower + c.Modules, Target: root + "/lib/modules/" + release, Flags: unix.MS_BIND})
	}
	if err := early.MountAll(mounts); err != nil {
		return err
	}
	return switchRoot(root)
}

// switchRoot makes dir, a mount point, the root of this process and of its children.
func switchRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", dir, err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// scratchDisk is the device of the scratch drive, or "".
func scratchDisk() string {
	serials, _ := filepath.Glob("/sys/block/vd*/serial")
	for _, file := range serials {
		if s, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(s)) == wire.ScratchSerial {
			return "/dev/" + filepath.Base(filepath.Dir(file))
		}
	}
	return ""
}

// openPort opens the virtio-serial port of a name.
func openPort(name string) (*os.File, error) {
	names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, file := range names {
		if s, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(s)) == name {
			dev := "/dev/" + filepath.Base(filepath.Dir(file))
			// Blocking: os.OpenFile would go through the runtime's poller.
			fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, &fs.PathError{Op: "open", Path: dev, Err: err}
			}
			return os.NewFile(uintptr(fd), dev), nil
		}
	}
	return nil, fmt.Errorf("no virtio-serial port %s", name)
}

// setUpHost does what a distribution's init would.
func setUpHost() error {
	if _, err := os.Stat("/dev/kvm"); errors.Is(err, fs.ErrNotExist) {
		return errors.New("no /dev/kvm: this QEMU emulates neither SVM nor VMX, or the kernel's module refused it")
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return err
	}
	return loopbackUp()
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// flush brings everything that outlives the lab to the machine: shares, and drives but the scratch one.
func flush(c wire.Command) error {
	paths := append([]string{}, c.Shares...)
	scratch := scratchDisk()
	disks, _ := filepath.Glob("/sys/block/vd*")
	for _, d := range disks {
		if dev := "/dev/" + filepath.Base(d); dev != scratch {
			paths = append(paths, dev)
		}
	}
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			err = unix.Syncfs(int(f.Fd()))
		} else if err == nil {
			err = f.Sync()
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("sync %s: %w", p, err)
		}
	}
	return nil
}
