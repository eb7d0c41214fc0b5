package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// What went wrong first is told with the end of the log, however long that says only that it still is.
func TestConsoleKeepsTheFirstBug(t *testing.T) {
	for _, repeated := range []int{0, 10, 10000} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c := newConsole(r, nil)
		fmt.Fprintln(w, "booted")
		fmt.Fprintln(w, "[1.5] watchdog: BUG: soft lockup\r")
		for i := range 40 {
			fmt.Fprintf(w, "trace %d\n", i)
		}
		for i := range repeated {
			fmt.Fprintf(w, "still BUG: soft lockup %d\n", i)
		}
		w.Close()
		c.wait()
		said := c.tail(30)
		for _, want := range []string{"BUG: soft lockup", "trace 0", "trace 39"} {
			if !strings.Contains(said+"\n", want+"\n") {
				t.Errorf("with %d lines after it, %q is missing:\n%s", repeated, want, said)
			}
		}
		if last := fmt.Sprintf("lockup %d", repeated-1); repeated > 0 && !strings.HasSuffix(said, last) || strings.Contains(said, "booted") {
			t.Errorf("with %d lines after it:\n%s", repeated, said)
		}
		r.Close()
	}
}

func TestConsoleOfALabWithoutTrouble(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := newConsole(r, nil)
	for i := range 50 {
		fmt.Fprintln(w, "line", i)
	}
	w.Close()
	c.wait()
	if said := c.tail(2); said != "    line 48\n    line 49" {
		t.Errorf("%q", said)
	}
}
