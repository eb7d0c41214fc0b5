package main

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// copySize is how much a plain copy copies, in bytes.
const copySize = 256 << 20

// plainCopy copies random bytes from memory to memory that was not touched before, over as many TCP connections as a
// migration has, and does nothing else. It returns bytes a second.
func (b *bench) plainCopy() (rate float64, err error) {
	if b.random == nil {
		if b.random, err = memory.New(copySize); err != nil {
			return 0, err
		}
		if _, err := rand.Read(b.random.Regions()[0].Bytes); err != nil {
			return 0, err
		}
	}
	to, err := memory.New(copySize)
	if err != nil {
		return 0, err
	}
	defer to.Close()
	l, err := net.Listen("tcp", moving.Here.Address+":0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	const part, piece = copySize / migration.DefaultStreams, 256 << 10
	errs := make([]error, 2*migration.DefaultStreams)
	var copying sync.WaitGroup
	begin := time.Now()
	for i := range migration.DefaultStreams {
		out, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return 0, err
		}
		defer out.Close()
		in, err := l.Accept()
		if err != nil {
			return 0, err
		}
		defer in.Close()
		copying.Go(func() {
			for p := b.random.Regions()[0].Bytes[i*part:][:part]; len(p) > 0 && errs[2*i] == nil; p = p[min(piece, len(p)):] {
				_, errs[2*i] = out.Write(p[:min(piece, len(p))])
			}
		})
		copying.Go(func() { _, errs[2*i+1] = io.ReadFull(in, to.Regions()[0].Bytes[i*part:][:part]) })
	}
	copying.Wait()
	return copySize / time.Since(begin).Seconds(), errors.Join(errs...)
}
