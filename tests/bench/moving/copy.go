package moving

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/migration"
)

// Copier copies without a migration.
type Copier struct {
	Size    int  // how much, in bytes: a multiple of memory.Alignment for each connection, and memory.HoleStart at most
	Touched bool // it goes to memory that was touched before

	random *memory.RAM // nil until something is copied
}

// Copy copies random bytes from memory to memory that was not touched before, unless c says so, over as many TCP connections as a
// migration has, and does nothing else. It returns bytes a second.
func (c *Copier) Copy() (rate float64, err error) {
	if c.random == nil {
		if c.random, err = memory.New(uint64(c.Size)); err != nil {
			return 0, err
		}
		if _, err := rand.Read(c.random.Regions()[0].Bytes); err != nil {
			return 0, err
		}
	}
	to, err := memory.New(uint64(c.Size))
	if err != nil {
		return 0, err
	}
	defer to.Close()
	if c.Touched {
		Touch(to)
	}
	l, err := net.Listen("tcp", Here.Address+":0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	const piece = 256 << 10
	part := c.Size / migration.DefaultStreams
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
			for p := c.random.Regions()[0].Bytes[i*part:][:part]; len(p) > 0 && errs[2*i] == nil; p = p[min(piece, len(p)):] {
				_, errs[2*i] = out.Write(p[:min(piece, len(p))])
			}
		})
		copying.Go(func() { _, errs[2*i+1] = io.ReadFull(in, to.Regions()[0].Bytes[i*part:][:part]) })
	}
	copying.Wait()
	return float64(c.Size) / time.Since(begin).Seconds(), errors.Join(errs...)
}
