package guest

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// WriteModulesDep writes modules.dep into a lib/modules/<release> folder of uncompressed modules, as depmod does (a
// Debian kernel package has none: depmod runs when it is installed). Each line names a module and everything it needs,
// directly or not; loading a line from right to left is a correct order.
func WriteModulesDep(dir string) error {
	files, err := findModules(dir, ".ko")
	if err != nil {
		return err
	}
	byName := make(map[string]string, len(files)) // module name → path
	needs := make(map[string][]string, len(files))
	for _, f := range files {
		name := moduleName(f)
		byName[name] = f
		if needs[name], err = moduleDepends(filepath.Join(dir, f)); err != nil {
			return fmt.Errorf("module %s: %w", f, err)
		}
	}
	var out bytes.Buffer
	for _, f := range files {
		order := loadOrder(moduleName(f), needs, nil)
		slices.Reverse(order)
		fmt.Fprintf(&out, "%s:", f)
		for _, dep := range order[1:] {
			if byName[dep] == "" {
				return fmt.Errorf("module %s needs %s, which is not in %s", f, dep, dir)
			}
			fmt.Fprintf(&out, " %s", byName[dep])
		}
		out.WriteByte('\n')
	}
	return os.WriteFile(filepath.Join(dir, "modules.dep"), out.Bytes(), 0o644)
}

// loadOrder appends name and what it needs to order, each once, dependencies first.
func loadOrder(name string, needs map[string][]string, order []string) []string {
	if slices.Contains(order, name) {
		return order
	}
	for _, dep := range needs[name] {
		order = loadOrder(dep, needs, order)
	}
	return append(order, name)
}

// moduleDepends reads the "depends=" entry of a module's .modinfo section: module names, separated by commas.
func moduleDepends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(strings.ReplaceAll(string(list), "-", "_"), ","), nil
		}
	}
	return nil, nil
}

// ModuleOrder returns the files of the named modules and of all they need, relative to k.Modules, in an order in which
// they can be loaded. What is built into this kernel is left out. It is an error if a module does not exist.
func (k Kernel) ModuleOrder(names ...string) ([]string, error) {
	builtin, err := readLines(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	isBuiltin := make(map[string]bool, len(builtin))
	for _, f := range builtin {
		isBuiltin[moduleName(f)] = true
	}
	lines, err := readLines(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	deps := make(map[string][]string, len(lines)) // module name → its files in load order, itself last
	for _, line := range lines {
		file, rest, _ := strings.Cut(line, ":")
		order := strings.Fields(rest)
		slices.Reverse(order)
		deps[moduleName(file)] = append(order, file)
	}
	var order []string
	for _, name := range names {
		name = moduleName(name)
		if isBuiltin[name] {
			continue
		}
		if deps[name] == nil {
			return nil, fmt.Errorf("kernel %s has no module %s", k.Release, name)
		}
		for _, f := range deps[name] {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	return order, nil
}

// moduleName is the kernel's name for a module file: no folder, no suffix, '_' for '-'.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// findModules lists the files below dir with a suffix, relative to it, sorted.
func findModules(dir, suffix string) ([]string, error) {
	var files []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(p, suffix) {
			files = append(files, p)
		}
		return err
	})
	return files, err
}

func readLines(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines, s.Err()
}
