package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

const (
	configOption = "config"
	diskOption   = "disk"

	maxConfig = 1 << 20 // bytes: a file that is longer was not written by hand
)

// setting is one option of a --config file.
type setting struct {
	line        int
	name, value string
}

var settingSyntax = regexp.MustCompile(`^(?:--?)?([a-z][a-z-]*)(?:\s*=\s*|\s+|$)(.*)$`)

// parseConfig reads a --config file: one option a line as on the command line,
// the dashes left out or not, the value after a space or "=" up to the line's end
// and without quotes. Empty lines and those that begin with # don't count.
func parseConfig(text string) ([]setting, error) {
	var list []setting
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m := settingSyntax.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d: %.40q is no option; write its name, a space and its value", i+1, line)
		}
		list = append(list, setting{i + 1, m[1], m[2]})
	}
	return list, nil
}

// applyConfig sets what --config's file says and the command line doesn't. Disks
// of the file don't give way to others: it returns them.
func applyConfig(c *cli.Context) (disks []string, err error) {
	if !c.IsSet(configOption) {
		return nil, nil
	}
	path := c.String(configOption)
	text, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	settings, err := parseConfig(text)
	if err != nil {
		return nil, usagef("--config %s, %w", path, err)
	}
	seen := map[string]bool{}
	for _, s := range settings {
		bad := func(format string, args ...any) error {
			return usagef("--config %s, line %d: %w", path, s.line, fmt.Errorf(format, args...))
		}
		option := findFlag(c, s.name)
		_, isSwitch := option.(*cli.BoolFlag)
		switch {
		case option == nil:
			return nil, bad("there is no option %s here; `%s --help` lists them", s.name, c.Command.HelpName)
		case seen[s.name] && s.name != diskOption:
			return nil, bad("%s is given twice; leave one", s.name)
		case isSwitch && s.value == "":
			s.value = "true"
		case s.value == "":
			return nil, bad("%s needs a value; write %s VALUE", s.name, s.name)
		}
		switch {
		case s.name == diskOption:
			disks = append(disks, s.value)
		case c.IsSet(s.name): // by the command line, as each comes once here
		default:
			if c.Set(s.name, s.value) != nil {
				return nil, bad("%s %s: write %s alone", s.name, s.value, s.name)
			}
		}
		seen[s.name] = true
	}
	return disks, nil
}

func readConfig(path string) (string, error) {
	bad := func(err error) (string, error) {
		return "", fmt.Errorf("--config %s can't be read (%w); give a text file with one option a line", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return bad(reason(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
		return bad(reason(err))
	case len(text) > maxConfig:
		return bad(fmt.Errorf("it is longer than %d bytes", maxConfig))
	case !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0:
		return bad(errors.New("it is no text"))
	}
	return string(text), nil
}

// findFlag returns the option a file may set by that name, or nil.
func findFlag(c *cli.Context, name string) cli.Flag {
	i := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return f.Names()[0] == name })
	if i < 0 || slices.Contains([]string{configOption, "help"}, name) {
		return nil
	}
	return c.Command.Flags[i]
}
