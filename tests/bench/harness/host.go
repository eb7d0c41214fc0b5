package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Describe is a line with the kernel, the processors and their load at this time, QEMU's version and the day.
func Describe(ctx context.Context) string {
	var u unix.Utsname
	kernel := "an unknown kernel"
	if err := unix.Uname(&u); err == nil {
		kernel = "Linux " + unix.ByteSliceToString(u.Release[:])
	}
	qemu := "no QEMU"
	if out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "--version").Output(); err == nil {
		qemu, _, _ = strings.Cut(string(out), "\n")
	}
	return fmt.Sprintf("%s, %d CPUs with a load of %s before it began, %s, %s",
		kernel, runtime.NumCPU(), loadAverage(), strings.TrimSpace(qemu), time.Now().UTC().Format(time.DateOnly))
}

// loadAverage is the load average of the last minute, as the kernel writes it.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown size"
	}
	now, _, _ := strings.Cut(string(data), " ")
	return now
}
