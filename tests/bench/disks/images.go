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

const imageSize = 64 << 20 // bytes a disk

// makeImages fills files, for reads of holes cost less than others.
func makeImages(dir string, n int) (paths []string, err error) {
	data := make([]byte, 1<<20)
	noise := rand.NewChaCha8([32]byte{})
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("disk%d.img", i))
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		for range imageSize / len(data) {
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
