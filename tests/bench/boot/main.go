// Command boot measures how long ebb and QEMU take from exec to a guest's user
// space, and how much memory they need beside the guest's:
//
//	make bench-boot
//
// Both boot the same vmlinux by PVH with the same initrd and four disks, in turn,
// several times, on the same host: this machine if its KVM boots Linux, else the
// lab. ebb's own share, from exec to the guest's first instruction, is measured on
// the machine itself, with a kernel whose entry point powers off.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/bench/harness"
	"github.com/ebb-vmm/ebb/tests/bench/stat"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

const (
	memoryMiB = 512
	disks     = 4
)

func main() {
	rounds := flag.Int("rounds", 9, "how often each boots")
	ebb := flag.String("ebb", "build/ebb", "the ebb to measure")
	against := flag.String("against", "", "another build of ebb to compare with, in QEMU's place")
	flag.Parse()
	harness.Main("boot", func(ctx context.Context) error {
		if *rounds < 1 {
			return errors.New("-rounds has to be at least 1")
		}
		return run(ctx, *ebb, *against, *rounds)
	})
}

func run(ctx context.Context, ebb, against string, rounds int) error {
	img, err := guest.BuiltImage()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ebb-bench-boot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	images, err := makeDisks(dir)
	if err != nil {
		return err
	}
	if lab.InLab() {
		return compare(candidates(ebb, against, img, images), rounds)
	}
	if err := ownShare(ebb, img, images, dir, rounds); err != nil {
		return err
	}
	if lab.KVMBootsLinux() {
		return compare(candidates(ebb, against, img, images), rounds)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	code, err := lab.Run(ctx, lab.Options{Deadline: 30 * time.Minute}, append([]string{self}, os.Args[1:]...), nil, os.Stdout, os.Stderr)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d in the lab", code)
	}
	return err
}

func makeDisks(dir string) (paths []string, err error) {
	for i := range disks {
		path := filepath.Join(dir, fmt.Sprintf("disk%d.img", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Truncate(path, 64<<20); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// summary is a median with its spread.
func summary(d []time.Duration) string {
	s := times(d)
	return fmt.Sprintf("median %v, %v to %v over %d runs", round(s.Median), round(s.Low), round(s.High), s.N)
}

// times sums durations up, in nanoseconds.
func times(d []time.Duration) stat.Stat {
	var v []float64
	for _, t := range d {
		v = append(v, float64(t))
	}
	return stat.Of(v)
}

func round(ns float64) time.Duration {
	d := time.Duration(ns)
	if d < time.Second {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
