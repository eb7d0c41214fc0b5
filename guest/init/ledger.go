package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/pattern"
	"github.com/ebb-vmm/ebb/guest/report"
)

// ledger keeps count of what was written to the first size bytes of every disk, with depth requests in flight on each: random
// blocks are written again and again, each time as another version, read back, and flushed now and then, until an empty line is
// typed on the console. Then all are read once more. Every read must find what was written last:
//
//	ebb: ledger: vda begins           all is written once
//	ebb: ledger: uptime SECONDS       the answer to a line that isn't empty
//	ebb: ledger: vda writes=N reads=N flushes=N sum=HEX
//
// The sum is pattern.Sum over what the disk holds, for the host to compare.
func ledger(a args) error {
	disks, err := a.disks(true)
	if err != nil {
		return err
	}
	n, err := a.numbers("size", "depth", "epoch")
	if err != nil {
		return err
	}
	size, depth, epoch := n[0], n[1], uint64(n[2])
	if depth < 1 || size < depth*ledgerBlock || size%ledgerBlock != 0 {
		return fmt.Errorf("size must be a multiple of %d, with a block for each of depth workers", ledgerBlock)
	}
	var over atomic.Bool
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() && in.Text() != "" {
			say("ledger: uptime %s", uptime())
		}
		if err := in.Err(); err != nil {
			say("ledger: the console: %v", err)
		}
		over.Store(true)
	}()
	return onAll(disks, func(d report.Disk) error { return ledgerOn(d, size/ledgerBlock, depth, epoch, &over) })
}

const ledgerBlock = 4096 // bytes

// ledgerDisk is what should be on one disk.
type ledgerDisk struct {
	*disk
	serial                 string
	epoch                  uint64
	seqs                   []uint64 // of each block, the last that was written
	writes, reads, flushes atomic.Int64
}

func ledgerOn(rd report.Disk, blocks, depth int64, epoch uint64, over *atomic.Bool) error {
	raw, err := openDisk(rd.Name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer raw.close()
	if raw.size < blocks*ledgerBlock {
		return fmt.Errorf("it has %d bytes, too few", raw.size)
	}
	d := &ledgerDisk{disk: raw, serial: rd.Serial, epoch: epoch, seqs: make([]uint64, blocks)}
	if err := d.everywhere(depth, d.write); err != nil {
		return err
	}
	say("ledger: %s begins", rd.Name)
	errs := make(chan error, depth)
	for i := range depth {
		go func() { errs <- d.work(i, depth, over) }()
	}
	for range depth {
		if e := <-errs; e != nil {
			over.Store(true) // the others need not wait for a line
			err = e
		}
	}
	if err == nil {
		err = d.sync()
	}
	if err == nil {
		err = d.everywhere(depth, d.check)
	}
	if err != nil {
		return err
	}
	say("ledger: %s writes=%d reads=%d flushes=%d sum=%x", rd.Name, d.writes.Load(), d.reads.Load(), d.flushes.Load(), pattern.Sum(d.seqs))
	return nil
}

// everywhere does something with all blocks, depth at a time.
func (d *ledgerDisk) everywhere(depth int64, f func(block int64, buf []byte) error) error {
	errs := make(chan error, depth)
	for i := range depth {
		go func() {
			errs <- d.buffered(func(buf []byte) error {
				for block := i; block < int64(len(d.seqs)); block += depth {
					if err := f(block, buf); err != nil {
						return err
					}
				}
				return nil
			})
		}()
	}
	var err error
	for range depth {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

func (d *ledgerDisk) buffered(f func(buf []byte) error) error {
	buf, err := alignedBuffer(ledgerBlock)
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	return f(buf)
}

// work is worker i of depth, to whom every depth-th block belongs: so nobody else writes it, and a read
// must find the last acknowledged write.
func (d *ledgerDisk) work(i, depth int64, over *atomic.Bool) error {
	random := rand.New(rand.NewPCG(d.epoch, uint64(i)))
	mine := (int64(len(d.seqs)) - i + depth - 1) / depth
	return d.buffered(func(buf []byte) error {
		for !over.Load() {
			block := i + depth*random.Int64N(mine)
			var err error
			switch n := random.IntN(32); {
			case n == 0:
				d.flushes.Add(1)
				err = d.sync()
			case n < 16:
				err = d.write(block, buf)
			default:
				err = d.check(block, buf)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *ledgerDisk) write(block int64, buf []byte) error {
	d.writes.Add(1)
	at := block * ledgerBlock
	pattern.Version{Epoch: d.epoch, Seq: d.seqs[block] + 1}.Fill(buf, d.serial, uint64(at/pattern.SectorSize))
	if err := d.disk.write(buf, at); err != nil {
		return err
	}
	d.seqs[block]++
	return nil
}

func (d *ledgerDisk) check(block int64, buf []byte) error {
	d.reads.Add(1)
	at := block * ledgerBlock
	if err := d.read(buf, at); err != nil {
		return err
	}
	got, err := pattern.ReadVersion(buf, d.serial, uint64(at/pattern.SectorSize))
	if want := (pattern.Version{Epoch: d.epoch, Seq: d.seqs[block]}); err == nil && got != want {
		err = fmt.Errorf("at %d there is %+v, and %+v was written last", at, got, want)
	}
	return err
}
