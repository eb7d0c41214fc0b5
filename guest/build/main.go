// Command build fetches guest kernels and makes guest images, under build/ in the project:
//
//	go run ./guest/build [-kernel 6.1,6.12] [-with fio,mke2fs]
//
// For each series it leaves build/bzImage-SERIES, build/vmlinux-SERIES and build/initrd-SERIES[-PROGRAM...].cpio.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/ebb-vmm/ebb/guest"
)

func main() {
	kernels := flag.String("kernel", guest.DefaultSeries, "kernel series to build for, separated by commas")
	with := flag.String("with", "", "host programs to include, separated by commas: fio, mke2fs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for series := range strings.SplitSeq(*kernels, ",") {
		if err := build(ctx, series, *with); err != nil {
			fmt.Fprintln(os.Stderr, "guest/build:", err)
			os.Exit(1)
		}
	}
}

func build(ctx context.Context, series, with string) error {
	spec := guest.Spec{Series: series}
	if with != "" {
		spec.Programs = strings.Split(with, ",")
	}
	img, err := guest.Build(ctx, spec)
	if err != nil {
		return err
	}
	dir := filepath.Dir(img.Initrd)
	if err := link(img.Kernel.BzImage, filepath.Join(dir, "bzImage-"+series)); err != nil {
		return err
	}
	if err := link(img.Kernel.Vmlinux, filepath.Join(dir, "vmlinux-"+series)); err != nil {
		return err
	}
	fmt.Printf("%s: kernel %s, initrd %s\n", series, img.Kernel.Release, img.Initrd)
	return nil
}

// link makes name a relative symbolic link to target.
func link(target, name string) error {
	rel, err := filepath.Rel(filepath.Dir(name), target)
	if err != nil {
		return err
	}
	if old, err := os.Readlink(name); err == nil && old == rel {
		return nil
	}
	tmp := fmt.Sprintf("%s.%d", name, os.Getpid())
	if err := os.Symlink(rel, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
