package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// manual reads docs/cli.md.
func manual(t *testing.T) string {
	t.Helper()
	return string(must[[]byte](t)(os.ReadFile(filepath.Join("..", "docs", "cli.md"))))
}

func TestManualIsComplete(t *testing.T) {
	text := manual(t)
	for _, f := range runCommand().Flags {
		if name := f.Names()[0]; !strings.Contains(text, "| `--"+name) {
			t.Errorf("docs/cli.md has no row for --%s", name)
		}
	}
	for _, key := range diskKeys {
		if !regexp.MustCompile("(?m)^\\| `" + key + "[=`]").MatchString(text) {
			t.Errorf("docs/cli.md has no row for the disk key %s", key)
		}
	}
}

// The manual's examples, run by a shell in a directory with its configuration
// file and images, but with a kernel that is none: so far each must come, as only
// the kernel is looked at after the whole command line.
func TestManualExamples(t *testing.T) {
	text := manual(t)
	dir := t.TempDir()
	var conf strings.Builder
	for _, l := range regexp.MustCompile(`(?m)^    # web\.conf\n((?:    .*\n)+)`).FindStringSubmatch(text)[1:] {
		conf.WriteString(strings.ReplaceAll(l, "    ", ""))
	}
	noError(t, os.WriteFile(filepath.Join(dir, "web.conf"), []byte(conf.String()), 0o600))
	noError(t, os.WriteFile(filepath.Join(dir, "vmlinuz"), []byte("none"), 0o600))
	noError(t, os.Symlink(must[string](t)(os.Executable()), filepath.Join(dir, "ebb")))

	examples := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(examples) < 4 {
		t.Fatalf("%d examples found", len(examples))
	}
	for _, e := range examples {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", e[1])
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), asEbb+"=", "XDG_RUNTIME_DIR="+t.TempDir(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "--kernel vmlinuz: not a kernel") {
			t.Errorf("%sexit code %d: %s", e[1], cmd.ProcessState.ExitCode(), out)
		}
	}
}
