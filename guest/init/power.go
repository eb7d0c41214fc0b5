package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/guest/early"
)

func nothing(args) error { return nil }

func powerOff(args) error {
	say("done ok") // nobody is left to say it
	early.PowerOff()
	return nil
}

// rebootMark in a disk's last sector says that the guest has been restarted.
const rebootMark = "ebb has rebooted"

// reboot restarts the machine: always, or, with once=DISK, if the disk's last sector has no mark; it then leaves one.
// With a mark there it wipes it and succeeds, so that the guest goes on with the next workload.
func reboot(a args) error {
	name := a.text("once")
	if name == "" {
		early.Restart()
	}
	d, err := openDisk(name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer d.close()
	buf, err := alignedBuffer(4096)
	if err != nil {
		return err
	}
	at := d.size - int64(len(buf))
	if err := d.read(buf, at); err != nil {
		return err
	}
	mark := buf[len(buf)-512:]
	if string(mark[:len(rebootMark)]) == rebootMark {
		clear(mark)
		return d.write(buf, at)
	}
	copy(mark, rebootMark)
	if err := d.write(buf, at); err != nil {
		return err
	}
	if err := d.sync(); err != nil {
		return err
	}
	early.Restart()
	return nil
}

// crash makes the kernel panic. What happens then is up to the kernel's panic= and to the machine.
func crash(args) error {
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
		return err
	}
	return fmt.Errorf("the kernel did not panic")
}

// idle prints "idle: N T", T being the monotonic clock in milliseconds, count times at a fixed pace: what a pause of the
// machine looks like from inside.
func idle(a args) error {
	count, err := a.number("count")
	if err != nil {
		return err
	}
	every, err := a.duration("every")
	if err != nil || every <= 0 {
		return fmt.Errorf("every: not a duration above zero")
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := range count {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			return err
		}
		say("idle: %d %d", n, ts.Nano()/1e6)
		<-tick.C
	}
	return nil
}
