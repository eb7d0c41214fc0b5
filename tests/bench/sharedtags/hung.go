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

// besideHung is the rate of the disk fast while the other one, which was at work, answers nothing any more.
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
	hangs, seconds := false, 0
	for lines := bufio.NewScanner(console); lines.Scan(); {
		s, ok := report.ParseDiskBenchSecond(lines.Text())
		switch {
		case !ok:
		case s.Errors != 0:
			return 0, fmt.Errorf("%d requests failed", s.Errors)
		case !hangs:
			hangs = true
			if err := other.Hang(); err != nil {
				return 0, err
			}
		case s.Idle == 1: // nothing came from the other disk in this second
			iops += s.IOPS
			if seconds++; seconds == o.seconds {
				return iops / float64(seconds), nil
			}
		}
	}
	return 0, fmt.Errorf("%s ended after %d seconds with a hung disk: %s", argv[0], seconds, log.String())
}
