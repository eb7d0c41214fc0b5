package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/ram"
	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// The two sides of a migration.
const (
	source      = "source"
	destination = "destination"
)

// outcome is what a side says in the end, as a line of JSON.
type outcome struct {
	Sum     uint64            // of its memory
	Report  *migration.Report `json:",omitempty"` // the source's
	Dirtied float64           `json:",omitempty"` // bytes a second, before the migration
}

// runSide is one process.
func runSide(ctx context.Context, o options) error {
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4)) // as ebb with one vCPU
	end := outcome{}
	run := runDestination
	if o.side == source {
		run = runSource
	}
	if err := run(ctx, o, &end); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(end)
}

// runDestination says where it listens, and takes one guest.
func runDestination(ctx context.Context, o options, end *outcome) error {
	m, err := memory.New(uint64(o.memoryMiB) << 20)
	if err != nil {
		return err
	}
	moving.Touch(m)
	l, err := migration.Security{}.Listen(moving.Here.Address + ":0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	in, err := migration.Receive(ctx, l, migration.ReceiveOptions{Host: place{m}})
	if err != nil {
		return err
	}
	end.Sum = sumOf(in.(arrived).memory)
	return nil
}

// runSource says that its memory is filled, and then migrates to the address that it is told.
func runSource(ctx context.Context, o options, end *outcome) error {
	guest, err := newPretended(o.memoryMiB)
	if err != nil {
		return err
	}
	go guest.live(ctx, o.dirty*1e6, filled(o.memoryMiB)<<20)
	begin := time.Now()
	fmt.Println("filled")
	address, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	end.Dirtied = float64(guest.changed.Load()*ram.PageSize) / time.Since(begin).Seconds()
	end.Report, err = migration.Send(ctx, migration.Options{
		Name: "pretended", Address: strings.TrimSpace(address), Drain: drain.Adaptive,
		Limits: migration.Limits{Downtime: o.downtime, Stall: 3 * o.downtime, Timeout: migrateLimit},
	}, guest)
	end.Sum = sumOf(guest.memory) // it stands
	return err
}
