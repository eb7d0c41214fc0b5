package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A round that is slow as a whole has no part in a ratio.
func TestGoals(t *testing.T) {
	r := record{Command: "this one", LeftOut: []string{"ebb native: refused"}}
	add := func(round int, candidate string, disks, depth int, iops, fairness float64) {
		r.Samples = append(r.Samples, sample{round, candidate, setup{onTmpfs, disks, depth}, result{IOPS: iops, Fairness: fairness}})
	}
	for round, pace := range []float64{1, 0.1, 0.5} {
		add(round, "ebb uring", 1, 64, 800e3*pace, 1)
		add(round, "QEMU uring", 1, 64, 400e3*pace, 1)
		add(round, bareName, 1, 64, 1000e3*pace, 1)
		add(round, "ebb uring", 16, 64, 720e3*pace, 0.95)
		add(round, "QEMU uring", 16, 64, 360e3*pace, 0.5)
		add(round, "ebb uring", 32, 64, 700e3*pace, 0.8+0.2*pace)
	}
	want := []string{"2.00 (2.00 to 2.00) pass", "2.00 (2.00 to 2.00) short", "0.90 (0.90 to 0.90) short", "0.95 (0.95 to 0.95) pass",
		"0.90 (0.82 to 1.00) pass", "0.80 (0.80 to 0.80) pass", "not measured", "not measured"}
	for i, g := range r.goals() {
		if !strings.HasSuffix(g.String(), want[i]) {
			t.Errorf("%s, want %s", g, want[i])
		}
	}

	dir := t.TempDir()
	doc := filepath.Join(dir, "disks.md")
	for _, picture := range []string{"disks.svg", "disks.png"} {
		if err := r.publish(doc, filepath.Join(dir, picture)); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, picture)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", picture, err)
		}
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"    this one\n", "](disks.png)\n", "- ebb native: refused\n",
		"| one disk, depth 64: ebb / QEMU | 1.80 | 2.00 (2.00–2.00) | pass |\n",
		"| disks | depth | ebb uring | QEMU uring | bare |\n",
		"| 1 | 64 | 400 (80–800) | 200 (40–400) | 500 (100–1000) |\n",
		"| 32 | 64 | 0.90 (0.82–1.00) | – | – |\n",
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("the table lacks %q:\n%s", line, text)
		}
	}
}

func TestBare(t *testing.T) {
	images, err := makeImages(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	got, err := bare(setup{onFile, 2, 4}, images, 50*time.Millisecond)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skip("no io_uring of Linux 6.1, or no O_DIRECT: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got.IOPS <= 0 || got.P50 <= 0 || got.P50 > got.P99 || got.Fairness <= 0 || got.Fairness > 1 {
		t.Errorf("%+v", got)
	}
}
