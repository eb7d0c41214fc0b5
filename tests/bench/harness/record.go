package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ebb-vmm/ebb/guest"
)

// Save keeps all that was measured in a file, as JSON. Its folder is made if need be.
func Save(path string, record any) error {
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return guest.ReplaceFile(path, data)
}

// Load reads what Save has kept into record, and reports whether there was anything.
func Load(path string, record any) (found bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, record); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}
