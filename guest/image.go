package guest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Spec says which guest to build. The zero value is the default one.
type Spec struct {
	Series   string   // kernel series; "" means DefaultSeries
	Modules  []string // besides those every guest has: its disks, and the port for reporting a panic
	Programs []string // host programs to include with their libraries, for the workloads that need them ("fio", "mke2fs")
	Files    []File   // further files
}

// DefaultSeries is the kernel series of guests and of the lab's host.
const DefaultSeries = "6.1"

// Image is a guest ready to boot.
type Image struct {
	Kernel Kernel
	Initrd string // path of the initramfs
}

// Build puts a guest into the project's build/ folder and returns where its parts are. What is there and right is
// used again; the first time fetches a kernel. Safe to call from several processes at once.
func Build(ctx context.Context, s Spec) (Image, error) {
	if s.Series == "" {
		s.Series = DefaultSeries
	}
	dir, err := BuildDir()
	if err != nil {
		return Image{}, err
	}
	k, err := FetchKernel(ctx, dir, s.Series)
	if err != nil {
		return Image{}, err
	}
	initProgram, err := BuildProgram(ctx, dir, "./guest/init")
	if err != nil {
		return Image{}, err
	}
	busybox, err := findProgram("busybox")
	if err != nil {
		return Image{}, err
	}
	files := slices.Clone(s.Files)
	for _, p := range s.Programs {
		more, err := ProgramFiles(ctx, p)
		if err != nil {
			return Image{}, err
		}
		files = append(files, more...)
	}
	var initrd bytes.Buffer
	err = WriteInitrd(&initrd, InitrdOptions{
		Kernel:  k,
		Init:    initProgram,
		Modules: append([]string{"virtio_pci", "virtio_blk", "pvpanic_mmio"}, s.Modules...),
		Busybox: busybox,
		Files:   files,
	})
	if err != nil {
		return Image{}, err
	}
	img := Image{Kernel: k, Initrd: filepath.Join(dir, initrdName(s))}
	return img, ReplaceFile(img.Initrd, initrd.Bytes())
}

// BuiltImage is the default guest as `make images` left it.
func BuiltImage() (Image, error) {
	build, err := BuildDir()
	if err != nil {
		return Image{}, err
	}
	img := Image{
		Kernel: Kernel{Series: DefaultSeries, Vmlinux: filepath.Join(build, "vmlinux-"+DefaultSeries)},
		Initrd: filepath.Join(build, initrdName(Spec{Series: DefaultSeries})),
	}
	for _, f := range []string{img.Kernel.Vmlinux, img.Initrd} {
		if _, err := os.Stat(f); err != nil {
			return img, fmt.Errorf("%w: make images builds it", err)
		}
	}
	return img, nil
}

// initrdName tells guests with different contents apart: "initrd-6.1-fio-mke2fs.cpio".
func initrdName(s Spec) string {
	parts := slices.Concat([]string{"initrd", s.Series}, s.Modules, s.Programs)
	for _, f := range s.Files {
		parts = append(parts, filepath.Base(f.Path))
	}
	return strings.NewReplacer("/", "_", " ", "_").Replace(strings.Join(parts, "-")) + ".cpio"
}

// ReplaceFile makes path hold data, at once and not step by step, and leaves it alone if it does already.
func ReplaceFile(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := tmp.Chmod(0o644); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
