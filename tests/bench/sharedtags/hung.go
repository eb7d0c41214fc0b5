package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/report"
	"github.com/ebb-vmm/ebb/tests/bench/diskvm"
	"github.com/ebb-vmm/ebb/tests/bench/nullblk"
)

// besideHung is the rate of the disk fast while the other one, which was at work, answers nothing any more: from the second on
// that begins after it hangs, whatever the fast one does in it.
func besideHung(ctx context.Context, o options, kernel, engine, fast string, other *nullblk.Mapped) (iops float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(o.seconds)*time.Second)
	defer cancel()
	m := diskvm.Machine{
		Kernel: kernel, Engine: engine, Images: []string{fast, other.Path}, QueueSize: 256,
		Cmdline: fmt.Sprintf("depth=%d forever mode=read", o.depth),
	}
	argv := append(m.EBB(o.ebb), "--aio-max", strconv.Itoa(o.most))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	console, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cancel()
		err = errors.Join(err, other.Resume()) // a process with requests in flight can't end
		_ = cmd.Wait()                         // it was killed
	}()
	hung, begun, hangs := make(chan error, 1), false, false
	seconds := -1 // the first may have begun before it hung, and its line be on its way yet
	for lines := bufio.NewScanner(console); lines.Scan(); {
		s, ok := report.ParseDiskBenchSecond(lines.Text())
		switch {
		case !ok:
		case s.Errors != 0:
			return 0, fmt.Errorf("%d requests failed", s.Errors)
		case !begun:
			if begun = s.Idle == 0; begun { // something came from both
				go func() { hung <- other.Hang() }() // waits for what the disk below has in flight
			}
		case len(hung) == 0 && !hangs:
		case !hangs:
			if err := <-hung; err != nil {
				return 0, err
			}
			hangs = true
		case seconds < 0:
			seconds++
		case s.Idle == 0:
			return 0, errors.New("the disk that hangs has answered")
		default:
			iops += s.IOPS
			if seconds++; seconds == o.seconds {
				return iops / float64(seconds), nil
			}
		}
	}
	return 0, fmt.Errorf("%s ended after %d seconds with a hung disk: %s", argv[0], seconds, log.String())
}
