package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/cli/control"
)

// manual reads docs/cli.md.
func manual(t *testing.T) string {
	t.Helper()
	return string(must[[]byte](t)(os.ReadFile(filepath.Join("..", "docs", "cli.md"))))
}

func TestManualIsComplete(t *testing.T) {
	text := manual(t)
	for _, f := range slices.Concat(runCommand().Flags, receiveCommand().Flags, migrateCommand().Flags) {
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

// Each command for a running VM has a row with its name, arguments and options.
func TestManualHasCommands(t *testing.T) {
	text := strings.ReplaceAll(manual(t), `\|`, "|") // as a table has it
	for _, c := range commands() {
		usages := []string{c.UsageText}
		switch {
		case c.Name == "run" || c.Name == "check":
			continue
		case c.Subcommands != nil:
			usages = nil
			for _, s := range c.Subcommands {
				usages = append(usages, s.UsageText)
			}
		}
		for _, usage := range usages {
			if !strings.Contains(text, "| `"+usage) {
				t.Errorf("docs/cli.md has no row for %s", usage)
			}
		}
		for _, f := range c.Flags {
			if !strings.Contains(c.UsageText, "--"+f.Names()[0]) {
				t.Errorf("%s: the usage text has no --%s", c.Name, f.Names()[0])
			}
		}
	}
}

// Each field of the JSON that scripts read is described, and nothing else is.
func TestManualHasJSON(t *testing.T) {
	_, text, _ := strings.Cut(manual(t), "### What `--json` prints")
	text, _, _ = strings.Cut(text, "\n### ")
	said := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*)\\|.*$").FindAllStringSubmatch(text, -1) {
		cells := row[1]
		if strings.Contains(cells, "`latency`") {
			cells = row[0] // and its fields
		}
		for _, name := range regexp.MustCompile("`([a-z0-9_.]+)`").FindAllStringSubmatch(cells, -1) {
			said[strings.TrimPrefix(name[1], "engine.")] = true
		}
	}
	has := map[string]bool{}
	jsonFields(reflect.TypeFor[control.Info](), has)
	jsonFields(reflect.TypeFor[control.Stats](), has)
	for name := range has {
		if !said[name] {
			t.Errorf("docs/cli.md doesn't describe the field %s", name)
		}
	}
	for name := range said {
		if !has[name] {
			t.Errorf("docs/cli.md describes a field %s, which there isn't", name)
		}
	}
}

// jsonFields collects the names of a type's fields in JSON, and of those within.
func jsonFields(t reflect.Type, into map[string]bool) {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		jsonFields(t.Elem(), into)
	case reflect.Struct:
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			into[name] = true
			jsonFields(f.Type, into)
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
