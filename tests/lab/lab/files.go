package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest"
)

// modules are what the lab's agent loads: devices, file systems, KVM.
var modules = []string{"virtio_pci", "virtio_console", "virtio_blk", "virtiofs", "overlay", "kvm-amd"}

// initrd makes the lab's initramfs, in memory.
func initrd(ctx context.Context, dir string, k guest.Kernel, more []string) (*os.File, error) {
	agent, err := guest.BuildProgram(ctx, dir, "./tests/lab/agent")
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("initrd", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "initrd")
	err = guest.WriteInitrd(f, guest.InitrdOptions{Kernel: k, Init: agent, Modules: append(modules[:len(modules):len(modules)], more...)})
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// scratchDrive makes an empty ext4 of size bytes in a sparse file that has no name.
func scratchDrive(ctx context.Context, size int64) (*os.File, error) {
	f, err := unnamedFile(os.TempDir())
	if err != nil {
		return nil, fmt.Errorf("scratch drive: %w", err)
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("scratch drive: %w", err)
	}
	mke2fs := "/usr/sbin/mke2fs"
	if p, err := exec.LookPath("mke2fs"); err == nil {
		mke2fs = p
	}
	cmd := exec.CommandContext(ctx, mke2fs, "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "nodiscard", "/dev/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if said, err := cmd.CombinedOutput(); err != nil {
		f.Close()
		return nil, fmt.Errorf("scratch drive: mke2fs (Debian: package e2fsprogs): %w: %s", err, bytes.TrimSpace(said))
	}
	return f, nil
}

// unnamedFile makes a file in dir that goes away with its last descriptor.
func unnamedFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "(unnamed)")), nil
	}
	f, err := os.CreateTemp(dir, "ebb-lab-") // not every file system can do O_TMPFILE
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// serveFiles starts a virtio-fs server for dir and returns it with the abstract name of its socket. What the lab may
// write is looked at again at every open, so that each side sees what the other did; the rest is taken to stand still.
func serveFiles(dir string, writable bool) (*process, string, error) {
	program, err := virtiofsdPath()
	if err != nil {
		return nil, "", err
	}
	name := "ebb-lab-" + rand.Text()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + name, Net: "unix"})
	if err != nil {
		return nil, "", err
	}
	defer listener.Close()
	f, err := listener.File()
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	cache := "always"
	if writable {
		cache = "auto"
	}
	cmd := exec.Command(program, "--fd=3", "-o", "source="+dir, "-o", "sandbox=chroot", "-o", "cache="+cache,
		"-o", "log_level=err", fmt.Sprintf("--rlimit-nofile=%d", fileLimit()))
	cmd.ExtraFiles = []*os.File{f}
	if os.Geteuid() != 0 { // it wants to be root; that of a user namespace will do
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
	}
	p, err := startProcess(cmd)
	return p, name, err
}

// fileLimit is how many files a virtio-fs server may have open: it keeps one for every file the lab knows.
func fileLimit() uint64 {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0 // as it is
	}
	return min(r.Max, 1_000_000)
}

// virtiofsdPath finds the virtio-fs server, which distributions keep out of PATH.
func virtiofsdPath() (string, error) {
	for _, p := range []string{"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "virtiofsd"} {
		if found, err := exec.LookPath(p); err == nil {
			return found, nil
		}
	}
	return "", errors.New("virtiofsd is not installed (Debian 12: package qemu-system-common, later: virtiofsd)")
}

// socketPair makes two connected stream sockets: one for us, one for a child.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // so that Close ends a Read
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "lab"), os.NewFile(uintptr(fds[1]), "qemu"), nil
}
