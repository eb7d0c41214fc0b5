package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// diskBenchFlags make a program for no operating system. It has no vector registers to save and no stack below the
// stack pointer, and the compiler must not turn its memset into a call of memset.
var diskBenchFlags = []string{
	"-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pic", "-mcmodel=small", "-O2",
	"-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
	"-fno-tree-loop-distribute-patterns", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wno-main", "-Werror",
	"-T", "link.ld", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", "-Wl,--no-warn-rwx-segments",
}

// BuildDiskBench compiles the bare-metal disk benchmark, guest/diskbench, and returns the path of its kernel,
// dir/bin/guest-diskbench. Both ebb and QEMU boot it with --kernel. Without gcc the error is a LackError.
func BuildDiskBench(ctx context.Context, dir string) (string, error) {
	root, err := ProjectRoot()
	if err != nil {
		return "", err
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", LackError{"gcc is not installed on this machine (Debian: apt-get install gcc)"}
	}
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(bin, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	src := filepath.Join(root, "guest", "diskbench")
	var sources []string
	for _, pattern := range []string{"*.S", "*.c"} {
		found, err := filepath.Glob(filepath.Join(src, pattern))
		if err != nil {
			return "", err
		}
		sources = append(sources, found...)
	}
	tmp, err := os.MkdirTemp(bin, ".diskbench-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, "kernel")
	cmd := exec.CommandContext(ctx, gcc, slices.Concat(diskBenchFlags, []string{"-o", fresh}, sources)...)
	cmd.Dir = src
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcc guest/diskbench: %w: %s", err, strings.TrimSpace(string(said)))
	}
	kernel, err := os.ReadFile(fresh)
	if err != nil {
		return "", err
	}
	out := filepath.Join(bin, "guest-diskbench")
	return out, ReplaceFile(out, kernel)
}
