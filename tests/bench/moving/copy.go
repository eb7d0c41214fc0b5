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

// CopySize is how much a plain copy copies, in bytes.
const CopySize = 256 << 20

// Copier copies without a migration. The zero value is ready.
type Copier struct {
	random *memory.RAM // nil until something is copied
}

// Copy copies random bytes from memory to memory that was not touched before, over as many TCP connections as a
// migration has, and does nothing else. It returns bytes a second.
func (c *Copier) Copy() (rate float64, err error) {
	if c.random == nil {
		if c.random, err = memory.New(CopySize); err != nil {
			return 0, err
		}
		if _, err := rand.Read(c.random.Regions()[0].Bytes); err != nil {
			return 0, err
		}
	}
	to, err := memory.New(CopySize)
	if err != nil {
		return 0, err
	}
	defer to.Close()
	l, err := net.Listen("tcp", Here.Address+":0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	const part, piece = CopySize / migration.DefaultStreams, 256 << 10
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
	return CopySize / time.Since(begin).Seconds(), errors.Join(errs...)
}
