package aio

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refusedEnv is set in a process whose seccomp filter forbids things, as a container's does:
// what it forbids, and the engine it asks for.
const refusedEnv = "EBB_TEST_REFUSED"

func TestRefused(t *testing.T) {
	howToAllow := []string{"refused", "operation not permitted", "kernel.io_uring_disabled", "seccomp"}
	for _, c := range []struct {
		name   string
		refuse string // system calls
		engine EngineKind
		out    []string
		log    []string // parts of the only line
	}{
		{name: "io_uring", refuse: "io_uring_setup", out: []string{"native runs"}, log: append(howToAllow, "engine=native")},
		{name: "io_uring and AIO", refuse: "io_uring_setup io_setup", out: []string{"threads runs"},
			log: append(howToAllow, "engine=threads")},
		{name: "io_uring, too old", refuse: "old-uring", out: []string{"native runs"}, log: []string{"too old", "Linux 5.13", "engine=native"}},
		{name: "only AIO", refuse: "io_setup", out: []string{"uring runs"}},
		{name: "AIO, asked for", refuse: "io_setup", engine: EngineNative, out: []string{"io_setup is refused", "not permitted", "seccomp"}},
		{name: "native, asked for", refuse: "io_uring_setup", engine: EngineNative, out: []string{"native runs"}},
		{name: "AIO, exhausted", refuse: "all-aio", engine: EngineNative, out: []string{"for 64 requests", "fs.aio-max-nr"}},
		{name: "AIO, nearly exhausted", refuse: "much-aio", engine: EngineNative, out: []string{"native runs", "300 requests, 0 errors"},
			log: []string{"not fully backed", "for 512 requests", "fs.aio-max-nr"}},
		{name: "io_uring, and AIO exhausted", refuse: "io_uring_setup all-aio", out: []string{"threads runs"},
			log: append(howToAllow, "engine=threads")},
		{name: "threads, asked for", refuse: "io_uring_setup io_setup", engine: EngineThreads, out: []string{"threads runs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(deadline(t), os.Args[0])
			cmd.Env = append(os.Environ(), refusedEnv+"="+c.engine.String()+" "+c.refuse)
			var log strings.Builder
			cmd.Stderr = &log
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s %s", err, out, log.String())
			}
			for _, part := range c.out {
				if !strings.Contains(string(out), part) {
					t.Errorf("%q is missing in %q", part, out)
				}
			}
			for _, part := range c.log {
				if !strings.Contains(log.String(), part) {
					t.Errorf("%q is missing in the log: %q", part, log.String())
				}
			}
			if lines, want := strings.Count(log.String(), "\n"), min(len(c.log), 1); lines != want {
				t.Errorf("%d lines in the log: %s", lines, log.String())
			}
		})
	}
}

// refusedMain is the process: it prints which engine runs, or New's error.
func refusedMain() int {
	words := strings.Fields(os.Getenv(refusedEnv))
	kind, err := ParseEngine(words[0])
	if err == nil {
		err = refuse(words[1:])
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	e, err := New(Config{Engine: kind, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		fmt.Println(err)
		return 0
	}
	fmt.Println(e.Stats().Engine, "runs")
	if err := manyReads(e); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := e.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// manyReads has 300 reads done at once, some of them larger than the file takes inline, and
// prints how that went.
func manyReads(e *Engine) error {
	f, err := os.CreateTemp("", "ebb-aio-")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(os.Remove(f.Name()), f.Truncate(1<<20)); err != nil {
		return err
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	kick, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(kick)
	b := alignedBytes(4096, 4096)
	q := &ringQueue{kick: kick, requests: []Request{rw(Read, 0, 0, b).Request}, left: 300}
	p, err := e.Attach(PortConfig{Name: "a", FD: fd, Queues: []Queue{q}, Demand: 512})
	if err != nil {
		return err
	}
	gone := make(chan struct{})
	for p.Stats().Read.Requests < 300 {
		runtime.Gosched()
	}
	p.Detach(func() { close(gone) })
	<-gone
	fmt.Println(p.Stats().Read.Requests, "requests,", p.Stats().Read.Errors, "errors")
	return nil
}

// refuse forbids system calls to this process. "much-aio" and "all-aio" do as if other
// programs left no room for contexts of more than 64 requests, or of any, and "old-uring"
// as if the kernel knew none of the flags of a ring.
func refuse(calls []string) error {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		answer = unix.BPF_RET | unix.BPF_K
		errno  = unix.SECCOMP_RET_ERRNO
		number = 0 // in seccomp_data; arguments follow at 16
	)
	is := func(nr uint32, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: no}
	}
	filter := []unix.SockFilter{{Code: load, K: number}}
	for _, call := range calls {
		switch call {
		case "io_uring_setup":
			filter = append(filter, is(unix.SYS_IO_URING_SETUP, 1), unix.SockFilter{Code: answer, K: errno | uint32(unix.EPERM)})
		case "old-uring":
			filter = append(filter, is(unix.SYS_IO_URING_SETUP, 1), unix.SockFilter{Code: answer, K: errno | uint32(unix.EINVAL)})
		case "io_setup":
			filter = append(filter, is(unix.SYS_IO_SETUP, 1), unix.SockFilter{Code: answer, K: errno | uint32(unix.EPERM)})
		case "all-aio":
			filter = append(filter, is(unix.SYS_IO_SETUP, 1), unix.SockFilter{Code: answer, K: errno | uint32(unix.EAGAIN)})
		case "much-aio":
			filter = append(filter, is(unix.SYS_IO_SETUP, 4), unix.SockFilter{Code: load, K: 16},
				unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: 64, Jf: 1},
				unix.SockFilter{Code: answer, K: errno | uint32(unix.EAGAIN)}, unix.SockFilter{Code: load, K: number})
		default:
			return fmt.Errorf("unknown %s", call)
		}
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // no_new_privs is the thread's until the filter is synchronised
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return errno
	}
	return nil
}
