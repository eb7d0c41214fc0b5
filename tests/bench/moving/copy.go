package moving

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/migration"
)

// Copier copies without a migration: random bytes from memory to memory, over as many TCP connections as a migration has, and nothing else.
type Copier struct {
	Size    int  // how much, in bytes: a multiple of memory.Alignment for each connection, and memory.HoleStart at most
	Touched bool // it goes to memory that was touched before

	random *memory.RAM // nil until something is copied
}

// receiverVariable is set in the environment of a process that does nothing but receive a copy. Its value is a receiver's text.
const receiverVariable = "EBB_BENCH_RECEIVE_COPY"

// ReceiveCopy is for the beginning of a main whose program copies between processes. In the process that Between starts it receives, and doesn't
// return; in others it does nothing.
func ReceiveCopy() {
	text, ok := os.LookupEnv(receiverVariable)
	if !ok {
		return
	}
	if err := receiveCopy(text, func(address string) { fmt.Println(address) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Between copies to another process, as a migration does: this program, started once more. It returns bytes a second.
func (c *Copier) Between(ctx context.Context) (rate float64, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	to := exec.CommandContext(ctx, program)
	to.Env = append(os.Environ(), receiverVariable+"="+c.receiver())
	to.Stderr = os.Stderr
	said, err := to.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := to.Start(); err != nil {
		return 0, err
	}
	address, err := bufio.NewReader(said).ReadString('\n')
	if err == nil {
		rate, err = c.send(strings.TrimSpace(address))
	}
	if err != nil {
		cancel() // it may wait for ever
	}
	return rate, errors.Join(err, to.Wait())
}

// Within copies within this process. It returns bytes a second.
func (c *Copier) Within() (rate float64, err error) {
	address, received := make(chan string, 1), make(chan error, 1)
	go func() {
		received <- receiveCopy(c.receiver(), func(at string) { address <- at })
	}()
	select {
	case at := <-address:
		if rate, err = c.send(at); err != nil {
			return 0, err
		}
		return rate, <-received
	case err := <-received:
		return 0, err
	}
}

// receiver is what the receiving side has to know, as a text.
func (c *Copier) receiver() string { return fmt.Sprintf("%d %t", c.Size, c.Touched) }

// receiveCopy says where it listens, receives one copy, and acknowledges it on each connection.
func receiveCopy(receiver string, listens func(address string)) error {
	var c Copier
	if _, err := fmt.Sscanf(receiver, "%d %t", &c.Size, &c.Touched); err != nil {
		return fmt.Errorf("%s=%q: %w", receiverVariable, receiver, err)
	}
	to, err := memory.New(uint64(c.Size))
	if err != nil {
		return err
	}
	defer to.Close()
	if c.Touched {
		Touch(to)
	}
	l, err := net.Listen("tcp", Here.Address+":0")
	if err != nil {
		return err
	}
	defer l.Close()
	listens(l.Addr().String())
	return c.each(to, l.Accept, func(in net.Conn, part []byte) error {
		if _, err := io.ReadFull(in, part); err != nil {
			return err
		}
		_, err := in.Write([]byte{0})
		return err
	})
}

// send copies to who listens there, and returns bytes a second.
func (c *Copier) send(address string) (rate float64, err error) {
	if c.random == nil {
		if c.random, err = memory.New(uint64(c.Size)); err != nil {
			return 0, err
		}
		if _, err := rand.Read(c.random.Regions()[0].Bytes); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	err = c.each(c.random, func() (net.Conn, error) { return net.Dial("tcp", address) }, func(out net.Conn, part []byte) error {
		const piece = 256 << 10
		for ; len(part) > 0; part = part[min(piece, len(part)):] {
			if _, err := out.Write(part[:min(piece, len(part))]); err != nil {
				return err
			}
		}
		_, err := io.ReadFull(out, make([]byte, 1))
		return err
	})
	return float64(c.Size) / time.Since(begin).Seconds(), err
}

// each copies the parts of m beside one another, each on a connection of its own.
func (c *Copier) each(m *memory.RAM, connect func() (net.Conn, error), copyPart func(net.Conn, []byte) error) error {
	size := c.Size / migration.DefaultStreams
	errs := make([]error, migration.DefaultStreams)
	var copying sync.WaitGroup
	defer copying.Wait()
	for i := range errs {
		conn, err := connect()
		if err != nil {
			return err
		}
		copying.Go(func() {
			defer conn.Close()
			errs[i] = copyPart(conn, m.Regions()[0].Bytes[i*size:][:size])
		})
	}
	copying.Wait()
	return errors.Join(errs...)
}
