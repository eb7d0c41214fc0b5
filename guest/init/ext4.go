package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/pattern"
	"github.com/ebb-vmm/ebb/guest/report"
)

// ext4 makes a file system on every disk with mke2fs and, on all at once, a few rounds of: write files and fsync them,
// remove every third, trim the free space, unmount, mount again, check what is left. At the end nothing is mounted.
func ext4(a args) error {
	disks, err := a.disks(true)
	if err != nil {
		return err
	}
	n, err := a.numbers("files", "size", "rounds")
	if err != nil {
		return err
	}
	files, size, rounds := n[0], n[1], n[2]
	return onAll(disks, func(d report.Disk) error {
		if err := command("mke2fs", "-q", "-F", "-t", "ext4", "/dev/"+d.Name); err != nil {
			return err
		}
		t := tree{disk: d, dir: "/mnt/" + d.Name, size: size, sums: map[string][32]byte{}}
		for round := range rounds {
			if err := t.round(round, files); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	})
}

// tree is the set of files on one disk.
type tree struct {
	disk report.Disk
	dir  string              // where it is mounted
	size int64               // of a file, at most
	sums map[string][32]byte // what must be there, by file name
}

func (t *tree) round(round, files int64) error {
	if err := t.mount(); err != nil {
		return err
	}
	err := t.change(round, files)
	if err2 := unix.Unmount(t.dir, 0); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	if err := t.mount(); err != nil {
		return err
	}
	err = t.check()
	if err2 := unix.Unmount(t.dir, 0); err == nil {
		err = err2
	}
	return err
}

func (t *tree) mount() error {
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev/"+t.disk.Name, t.dir, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

func (t *tree) change(round, files int64) error {
	for i := range files {
		// Sizes from one sector to t.size, in no order.
		sectors := 1 + (i*i*7+round*3)%max(1, t.size/pattern.SectorSize)
		data := make([]byte, sectors*pattern.SectorSize)
		name := fmt.Sprintf("r%d-f%d", round, i)
		pattern.Fill(data, t.disk.Serial+name, 0)
		if err := writeSynced(filepath.Join(t.dir, name), data); err != nil {
			return err
		}
		t.sums[name] = sha256.Sum256(data)
	}
	for i := int64(0); i < files; i += 3 {
		name := fmt.Sprintf("r%d-f%d", round, i)
		if err := os.Remove(filepath.Join(t.dir, name)); err != nil {
			return err
		}
		delete(t.sums, name)
	}
	unix.Sync() // blocks of removed files are free only when the journal says so
	root, err := os.Open(t.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := trim(int(root.Fd())); err != nil {
		return fmt.Errorf("FITRIM: %w", err)
	}
	return nil
}

func (t *tree) check() error {
	for name, want := range t.sums {
		data, err := os.ReadFile(filepath.Join(t.dir, name))
		if err != nil {
			return err
		}
		if sha256.Sum256(data) != want {
			return fmt.Errorf("%s: wrong contents", name)
		}
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
