package moving

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// say is the guest's line n.
func say(n int) string {
	return fmt.Sprintf("diskbench: t=%d at=%d00000.0us iops=200 max=5.0us gap=1.0us kicks=1 errors=0 idle=0 verified=0 mismatches=0\r\n", n, n)
}

// moved is a guest that moves in the midst of its line 3.
func moved() (source, destination string) {
	line := say(3)
	return "booting\r\n" + say(1) + say(2) + line[:20], line[20:] + say(4)
}

func heard(sides ...string) ([]Line, error) {
	var all []*Console
	for _, text := range sides {
		c := &Console{}
		c.follow(io.Reader(strings.NewReader(text)))
		all = append(all, c)
	}
	return Timeline(all...)
}

func TestTimeline(t *testing.T) {
	lines, err := heard(moved())
	if err != nil || len(lines) != 4 || lines[2].T != 3 || lines[2].Side != 1 || lines[1].Side != 0 || lines[3].Host.IsZero() {
		t.Errorf("%+v, %v", lines, err)
	}
}

// The line that is missing may be the one with the gap.
func TestMissingLine(t *testing.T) {
	source, destination := moved()
	for name, sides := range map[string][]string{
		"line":   {say(1) + say(3)},
		"begin":  {source[:len(source)-20], destination},
		"errors": {strings.Replace(say(1), "errors=0", "errors=1", 1)},
		"failed": {say(1) + "diskbench: FAILED: no disk\r\n"},
	} {
		if _, err := heard(sides...); err == nil {
			t.Errorf("%s: nothing was noticed", name)
		}
	}
}
