package lab

import "testing"

func TestPatternOfTests(t *testing.T) {
	names := []string{"TestB/a_(b)", "TestA", "TestB/c", "TestA"}
	const want = `^TestA$|^TestB$/^a_\(b\)$|^TestB$/^c$`
	if got := patternOf(names); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
