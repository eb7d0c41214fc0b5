package lab

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// rest are the names of the tests that NeedKVM has left.
var rest struct {
	sync.Mutex
	names []string
}

// NeedKVM is for the tests of a package of which most need no KVM: on a machine without one it skips the test, and
// leaves it to Rest.
func NeedKVM(t testing.TB) {
	t.Helper()
	if HasKVM() {
		return
	}
	rest.Lock()
	rest.names = append(rest.names, t.Name())
	rest.Unlock()
	t.Skip("no KVM here: it comes in the lab, after the others")
}

// Rest runs the tests that NeedKVM has left, in one lab, and returns the exit code. TestMain calls it after m.Run. Where
// there can be no lab it calls Skip.
func Rest(o Options) (code int) {
	if len(rest.names) == 0 {
		return 0
	}
	skipWithoutLab(fmt.Sprintf("%d tests need a KVM", len(rest.names)))
	code, err := runTests(o, "-test.run="+patternOf(rest.names))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// patternOf is a -test.run that selects tests and subtests by name.
func patternOf(names []string) string {
	var patterns []string
	for _, name := range names {
		var levels []string
		for level := range strings.SplitSeq(name, "/") {
			levels = append(levels, "^"+regexp.QuoteMeta(level)+"$")
		}
		patterns = append(patterns, strings.Join(levels, "/"))
	}
	slices.Sort(patterns)
	return strings.Join(slices.Compact(patterns), "|")
}
