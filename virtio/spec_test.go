package virtio_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/spec.md names tests that exist, in the package it names.
func TestSpecNamesTests(t *testing.T) {
	doc, err := os.ReadFile("../docs/spec.md")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{"virtio": ".", "pci": "pci", "blk": "../blk", "guestlog": "guestlog"}
	have := map[string]string{} // package → sources of its tests
	for name, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no tests in %s (%v)", dir, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			have[name] += string(b)
		}
	}
	all := strings.Join([]string{have["virtio"], have["pci"], have["blk"], have["guestlog"]}, "")
	found := 0
	for _, m := range regexp.MustCompile("(?:\\b(virtio|pci|blk|guestlog) )?`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(doc), -1) {
		src := all
		if m[1] != "" {
			src = have[m[1]]
		}
		if !strings.Contains(src, "func "+m[2]+"(") {
			t.Errorf("docs/spec.md names %s %s, which doesn't exist", m[1], m[2])
		}
		found++
	}
	if found < 50 {
		t.Errorf("only %d names found in docs/spec.md", found)
	}
}
