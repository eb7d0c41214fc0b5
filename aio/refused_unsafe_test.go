package aio

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
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
		{name: "only AIO", refuse: "io_setup", out: []string{"uring runs"}},
		{name: "AIO, asked for", refuse: "io_setup", engine: EngineNative, out: []string{"io_setup is refused", "not permitted", "seccomp"}},
		{name: "native, asked for", refuse: "io_uring_setup", engine: EngineNative, out: []string{"native runs"}},
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
	if err := e.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// refuse forbids system calls to this process.
func refuse(calls []string) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for name, nr := range map[string]uint32{"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_setup": unix.SYS_IO_SETUP} {
		if slices.Contains(calls, name) {
			filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: 0, Jf: 1},
				unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
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
