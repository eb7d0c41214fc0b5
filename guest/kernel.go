package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel is an unpacked Debian cloud kernel.
type Kernel struct {
	Series  string // as asked for, "6.1"
	Release string // what uname -r prints, "6.1.0-56-cloud-amd64"
	BzImage string // path of the bzImage
	Vmlinux string // path of the uncompressed ELF file, with PVH note
	Modules string // path of lib/modules/<release>; the modules are not compressed and modules.dep is there
}

// FetchKernel returns the newest Debian cloud kernel of a series ("6.1", "6.12"), from dir/kernel/<series> when it is
// there, else by "apt-get download" and "dpkg -x". A cached kernel is never refreshed: remove its folder for that.
// Several processes may call it at once for one dir; one does the work.
func FetchKernel(ctx context.Context, dir, series string) (Kernel, error) {
	home := filepath.Join(dir, "kernel", series)
	if k, err := openKernel(home, series); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return Kernel{}, err
	}
	unlock, err := lockFile(home + ".lock")
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	if k, err := openKernel(home, series); err == nil { // somebody else was faster
		return k, nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(home), series+".tmp-")
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	if err := fetchKernel(ctx, tmp, series); err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", series, err)
	}
	if err := os.RemoveAll(home); err != nil { // an incomplete one
		return Kernel{}, err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return Kernel{}, err
	}
	if err := os.Rename(tmp, home); err != nil {
		return Kernel{}, err
	}
	return openKernel(home, series)
}

// openKernel describes the kernel in home, or fails if it is not complete.
func openKernel(home, series string) (Kernel, error) {
	vmlinux := filepath.Join(home, "vmlinux") // written last
	if _, err := os.Stat(vmlinux); err != nil {
		return Kernel{}, err
	}
	images, _ := filepath.Glob(filepath.Join(home, "boot", "vmlinuz-*"))
	if len(images) != 1 {
		return Kernel{}, fmt.Errorf("%s/boot holds %d kernels instead of one", home, len(images))
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return Kernel{
		Series:  series,
		Release: release,
		BzImage: images[0],
		Vmlinux: vmlinux,
		Modules: filepath.Join(home, "lib", "modules", release),
	}, nil
}

// fetchKernel downloads and unpacks into dir, which is empty.
func fetchKernel(ctx context.Context, dir, series string) error {
	for _, tool := range []string{"apt-cache", "apt-get", "dpkg", "busybox"} {
		if _, err := exec.LookPath(tool); err != nil {
			return LackError{tool + " is missing: kernels come from Debian's archive (install apt, dpkg and busybox-static)"}
		}
	}
	pkg, err := kernelPackage(ctx, series)
	if err != nil {
		return err
	}
	if _, err := runIn(ctx, dir, "apt-get", "download", "-q", pkg); err != nil {
		return LackError{err.Error() + " (run apt-get update first?)"}
	}
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages instead of one", pkg, len(debs))
	}
	if _, err := runIn(ctx, dir, "dpkg", "-x", debs[0], "."); err != nil {
		return err
	}
	if err := os.Remove(debs[0]); err != nil {
		return err
	}
	// Debian 13 and later unpack to usr/lib/modules.
	if _, err := os.Stat(filepath.Join(dir, "lib")); errors.Is(err, os.ErrNotExist) {
		if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil {
			return err
		}
	}
	modules, _ := filepath.Glob(filepath.Join(dir, "lib", "modules", "*"))
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(modules) != 1 || len(images) != 1 {
		return fmt.Errorf("package %s is not a kernel with modules", pkg)
	}
	if err := uncompressModules(ctx, modules[0]); err != nil {
		return err
	}
	if err := WriteModulesDep(modules[0]); err != nil {
		return err
	}
	image, err := os.ReadFile(images[0])
	if err != nil {
		return err
	}
	vmlinux, err := ExtractVmlinux(image)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(images[0]), err)
	}
	return os.WriteFile(filepath.Join(dir, "vmlinux"), vmlinux, 0o644)
}

// kernelPackage asks apt which package is the newest cloud kernel of a series.
func kernelPackage(ctx context.Context, series string) (string, error) {
	for _, meta := range []string{"linux-image-" + series + "-cloud-amd64", "linux-image-cloud-amd64"} {
		out, err := runIn(ctx, "", "apt-cache", "depends", "--important", meta)
		if err != nil {
			continue // no such package
		}
		for line := range strings.Lines(string(out)) {
			pkg, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
			if ok && strings.HasPrefix(pkg, "linux-image-"+series+".") {
				return pkg, nil
			}
		}
	}
	return "", LackError{"apt knows no Debian cloud kernel of this series: run apt-get update, or choose another series"}
}

// uncompressModules turns every .ko.xz below dir into a .ko, as modules of a tiny guest are loaded before anything
// that could unpack them, and unpacking in an emulator is slow.
func uncompressModules(ctx context.Context, dir string) error {
	files, err := findModules(dir, ".ko.xz")
	if err != nil || len(files) == 0 {
		return err
	}
	_, err = runIn(ctx, dir, "busybox", append([]string{"unxz"}, files...)...)
	return err
}

// runIn runs a tool in a folder and returns its output; the error holds what it said.
func runIn(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		said := strings.TrimSpace(stderr.String())
		if len(args) > 3 {
			args = args[:3]
		}
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
	}
	return out, nil
}

// lockFile takes an exclusive lock, waiting for whoever has it, and returns the function that gives it back.
func lockFile(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
