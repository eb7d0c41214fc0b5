package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/ebb-vmm/ebb/tests/bench/moving"
)

// ebb migrates a pretended guest from one process to another.
func (b *bench) ebb(ctx context.Context, dirty int) (s sample, err error) {
	from, err := b.startSide(ctx, source, dirty)
	if err != nil {
		return s, err
	}
	defer from.stop()
	if _, err := from.says(); err != nil {
		return s, err
	}
	to, err := b.startSide(ctx, destination, 0)
	if err != nil {
		return s, err
	}
	defer to.stop()
	address, err := to.says()
	if err != nil {
		return s, err
	}
	if err = b.copyBeside(ctx, &s); err != nil {
		return s, err
	}
	if _, err := io.WriteString(from.in, address+"\n"); err != nil {
		return s, err
	}
	sent, err := from.ends()
	if err != nil {
		return s, err
	}
	received, err := to.ends()
	if err != nil {
		return s, err
	}
	if sent.Sum != received.Sum {
		return s, errors.New("the memory that arrived is not the one that left")
	}
	r := sent.Report
	s.dirtied, s.total, s.downtime, s.sent = sent.Dirtied, r.Total, r.Downtime.Total, float64(r.Memory.Bytes)
	s.passes, s.throttle = r.Memory.Passes, r.Throttle
	s.rate = float64(r.Passes[0].Bytes) / r.Passes[0].Took.Seconds()
	return s, nil
}

// copyBeside makes plain copies beside a guest that has settled.
func (b *bench) copyBeside(ctx context.Context, s *sample) (err error) {
	if s.plain, err = b.copier.Between(ctx); err == nil {
		s.within, err = b.copier.Within()
	}
	if err != nil {
		return fmt.Errorf("a plain copy: %w", err)
	}
	return moving.Sleep(ctx, settle)
}

// sideProcess is one of the two.
type sideProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (b *bench) startSide(ctx context.Context, side string, dirty int) (*sideProcess, error) {
	p := &sideProcess{cmd: exec.CommandContext(ctx, b.program, "-side", side, "-memory", strconv.Itoa(b.memoryMiB), "-dirty", strconv.Itoa(dirty), "-downtime", b.downtime.String())}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.cmd.Start()
}

func (p *sideProcess) says() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%v: %w", p.cmd.Args, err)
	}
	return strings.TrimSpace(line), nil
}

func (p *sideProcess) ends() (end outcome, err error) {
	if err = json.NewDecoder(p.out).Decode(&end); err == nil {
		err = p.cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("%v: %w", p.cmd.Args, err)
	}
	return end, err
}

// stop is for a process that may have ended.
func (p *sideProcess) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
