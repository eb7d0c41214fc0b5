package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Where disks are.
const (
	onTmpfs = "tmpfs"
	onFile  = "file"
)

// totalSize is what all disks of a setup have together, in bytes. It is the same for any
// number of disks: with more data more reads miss the processor's caches, and that is not
// what is to be measured.
const totalSize = 512 << 20

func imageSize(disks int) int64 { return totalSize / int64(disks) &^ (1<<20 - 1) }

// makeImages fills n files, for reads of holes cost less than others.
func makeImages(dir string, n int) (paths []string, err error) {
	data := make([]byte, 1<<20)
	noise := rand.NewChaCha8([32]byte{})
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("disk%d-of-%d.img", i, n))
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		for range imageSize(n) / int64(len(data)) {
			_, _ = noise.Read(data) // never fails
			if _, err := f.Write(data); err != nil {
				f.Close()
				return nil, err
			}
		}
		if err := f.Sync(); err != nil {
			f.Close()
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}
