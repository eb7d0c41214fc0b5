package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// fio works on all raw disks at once with the fio program: on the first size bytes of each, random writes of mixed sizes with a
// crc32c in every block, read back and checked as they age and once more at the end, with a flush every 16 writes; on the
// next size bytes random trims and writes.
func fio(a args) error {
	disks, err := a.disks(true)
	if err != nil {
		return err
	}
	n, err := a.numbers("size", "depth")
	if err != nil {
		return err
	}
	size, depth := n[0], n[1]
	var job strings.Builder
	fmt.Fprintf(&job, `[global]
ioengine=libaio
direct=1
iodepth=%d
size=%d
thread
group_reporting
`, depth, size)
	for _, d := range disks {
		if d.Size < 2*size {
			return fmt.Errorf("%s has %d bytes, fio needs twice size=%d", d.Name, d.Size, size)
		}
		fmt.Fprintf(&job, `[verify-%[1]s]
filename=/dev/%[1]s
rw=randwrite
bsrange=4k-64k
verify=crc32c
verify_fatal=1
verify_backlog=64
do_verify=1
fdatasync=16
[trim-%[1]s]
filename=/dev/%[1]s
offset=%[2]d
rw=randtrimwrite
bs=16k
fsync=32
`, d.Name, size)
	}
	const file = "/tmp/fio.job"
	if err := os.WriteFile(file, []byte(job.String()), 0o644); err != nil {
		return err
	}
	return command("fio", "--minimal", file)
}

// command runs a program of the guest. Its output counts only if it fails.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		say("%s: %s", name, strings.TrimRight(line, "\n"))
	}
	return fmt.Errorf("%s: %w", name, err)
}
