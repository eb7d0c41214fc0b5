package diskvm

import (
	"slices"
	"strings"
	"testing"
)

func TestParseNumbers(t *testing.T) {
	if n, err := ParseNumbers("disks", "1,64,16", 64); err != nil || !slices.Equal(n, []int{1, 64, 16}) {
		t.Errorf("%v, %v", n, err)
	}
	for _, list := range []string{"", "0", "65", "1,", "1 2", "one"} {
		if _, err := ParseNumbers("disks", list, 64); err == nil || !strings.HasPrefix(err.Error(), "-disks "+list+": ") {
			t.Errorf("%q: %v", list, err)
		}
	}
}

func TestParseEngines(t *testing.T) {
	if e, err := ParseEngines("native,uring"); err != nil || !slices.Equal(e, []string{"native", "uring"}) {
		t.Errorf("%v, %v", e, err)
	}
	for _, list := range []string{"", "uring,", "io_uring"} {
		if _, err := ParseEngines(list); err == nil || !strings.HasPrefix(err.Error(), "-engines "+list+": ") {
			t.Errorf("%q: %v", list, err)
		}
	}
}
