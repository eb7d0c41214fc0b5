package lab

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminalPair makes a pseudo-terminal of this machine: the person's end, and the program's.
func terminalPair(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("this machine has no pseudo-terminals:", err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 31, Col: 97}); err != nil {
		t.Fatal(err)
	}
	return person, program
}

func TestPersonHasATerminal(t *testing.T) {
	need(t)
	person, program := terminalPair(t)
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		o := Options{Deadline: 5 * time.Minute, Env: append(Environment(), helperVariable+"=interrupt")}
		code, err := Run(t.Context(), o, []string{os.Args[0]}, program, program, program)
		ended <- end{code, err}
	}()
	heard := make(chan string)
	go func() { // to the end of a line
		defer close(heard)
		buf := make([]byte, 1000)
		for n := 0; !bytes.Contains(buf[:n], []byte("\n")); {
			var err error
			if n, err = person.Read(buf); err != nil {
				t.Error(err)
				return
			}
			heard <- string(buf[:n])
		}
	}()
	said := ""
	for more, ok := "", true; ok; said += more {
		select {
		case more, ok = <-heard:
		case e := <-ended:
			t.Fatalf("the command ended before a line was complete: exit code %d, %v, said %q", e.code, e.err, said)
		}
	}
	if _, err := person.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	e := <-ended
	if e.err != nil || e.code != 3 {
		t.Errorf("exit code %d, %v", e.code, e.err)
	}
	if said != "terminal 31 97 <nil>\r\n" {
		t.Errorf("the command said %q", said)
	}
	after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Errorf("the terminal is not as it was: %+v, before %+v", after, before)
	}
}
